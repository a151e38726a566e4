const READ_AT_MOST = 60_000; // milliseconds between two reads, whether they succeed or fail

export interface Source<T> {
  now: () => number;
  read: () => Promise<T>;
  due: (value: T) => number; // when the value should be read again
  ends: (value: T) => number; // when the value is of no use any more
  gone: (value: T) => Error; // says so
}

/**
 * A value that is read when it is asked for and due. Many may ask at once: one of them reads. Whoever
 * comes meanwhile gets the value of before, or waits if that is of no use any more.
 */
export class Kept<T> {
  #value: T | undefined;
  #error: unknown; // of the last read
  #readAt = Number.NEGATIVE_INFINITY; // when the last read began
  #reading: Promise<void> | undefined;
  readonly #source: Source<T>;

  constructor(source: Source<T>, value?: T) {
    this.#source = source;
    this.#value = value;
  }

  /** Returns the value and when it will be read again, or throws the last read's error. */
  async get(): Promise<[value: T, again: number]> {
    const { now, due, ends, gone } = this.#source;
    const asked = now();
    const sinceRead = asked - this.#readAt; // below zero if the clock has been set back
    const mayRead = !this.#reading && !(sinceRead >= 0 && sinceRead < READ_AT_MOST);
    if (mayRead && !this.#before(due, asked)) {
      this.#readAt = asked;
      this.#reading = this.#read();
      await this.#reading;
    } else if (this.#reading && !this.#before(ends, asked)) {
      await this.#reading;
    }
    const value = this.#value;
    if (value !== undefined && now() < ends(value)) {
      return [value, Math.min(Math.max(due(value), this.#readAt + READ_AT_MOST), ends(value))];
    }
    // Without an error of the last read, the value has ended since.
    throw this.#error ?? gone(value as T);
  }

  async #read(): Promise<void> {
    const { now, read, ends, gone } = this.#source;
    this.#error = undefined;
    try {
      const value = await read();
      if (now() >= ends(value)) {
        throw gone(value);
      }
      this.#value = value;
    } catch (error) {
      this.#error = error;
    } finally {
      this.#reading = undefined;
    }
  }

  #before(end: (value: T) => number, now: number): boolean {
    return this.#value !== undefined && now < end(this.#value);
  }
}
