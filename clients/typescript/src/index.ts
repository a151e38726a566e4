import { DescribeSecretCommand, GetSecretValueCommand, SecretsManagerClient } from "@aws-sdk/client-secrets-manager";
import { Kept } from "./kept.js";

export type ErrorKind = "not_found" | "not_permitted" | "malformed" | "expired" | "refused" | "unavailable";

/** A connection's token could not be had. The kind says why; no message shows a token. */
export class EntraConnectorError extends Error {
  override readonly name = "EntraConnectorError";
  readonly kind: ErrorKind;

  constructor(kind: ErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

export interface ConnectionCredentialOptions {
  /** The connector's SECRET_PREFIX; "entra" by default. */
  prefix?: string;
  /** The connector's REFRESH_WINDOW in milliseconds; 30 minutes by default. */
  window?: number;
  /** The connection's scope. Without it, the first call that asks for a scope looks it up. */
  scope?: string;
  /** A client with its own time limits and retries. */
  client?: Pick<SecretsManagerClient, "send">;
  now?: () => number;
}

/** What the Azure SDK asks for. */
export interface GetTokenOptions {
  tenantId?: string;
  claims?: string;
}

/** A token, in the form of `@azure/core-auth`. It prints without the token. Times are in milliseconds. */
export interface AccessToken {
  token: string;
  expiresOnTimestamp: number;
  refreshAfterTimestamp: number;
  tokenType: "Bearer";
}

const KEY = "PAN_SEC_MICROSOFT_ENTRA_";
const NUMBER = /^[0-9]{1,10}$/;
const TEXT = /./;
const SIX = {
  [`${KEY}TOKEN_TYPE`]: /^Bearer$/,
  [`${KEY}EXPIRES_AT`]: NUMBER,
  [`${KEY}EXPIRES_IN`]: NUMBER,
  [`${KEY}EXT_EXPIRES_IN`]: NUMBER,
  [`${KEY}ACCESS_TOKEN`]: TEXT,
  [`${KEY}TENANT_ID`]: TEXT,
};
const SCOPE_TAG = "entra-connector:scope";
const PART = "[a-z0-9][a-z0-9._-]*";
const NAME = new RegExp(`^([A-Za-z0-9/_+=.@-]+/connections/)?(${PART}/${PART})$`);
const ARN = new RegExp(
  `^arn:[^:]+:secretsmanager:([^:]+):[0-9]{12}:secret:.+/connections/(${PART}/${PART})-[A-Za-z0-9]{6}$`,
);
const MINUTE = 60_000;
const SWEEP = 5 * MINUTE + MINUTE; // the connector sweeps every five minutes, and a sweep takes a moment
const READ_TIMEOUT = 10_000;

interface Stored {
  values: Record<string, string>;
  token: string;
  tenant: string;
  ends: number;
  life: number;
}

/** The token of one connection, as a credential of the Azure SDK or by itself. */
export class ConnectionCredential {
  /** app/connection */
  readonly connection: string;
  readonly #secret: string;
  readonly #window: number;
  readonly #client: Pick<SecretsManagerClient, "send">;
  readonly #stored: Kept<Stored>;
  readonly #scope: Kept<string>;

  /** @param connection "app/connection", or the full name or the ARN of its secret */
  constructor(connection: string, options: ConnectionCredentialOptions = {}) {
    const arn = ARN.exec(connection);
    const [, place, name] = arn ?? NAME.exec(connection) ?? [];
    if (name === undefined || name.includes("..")) {
      const given = JSON.stringify(connection);
      throw new TypeError(`${given} is neither app/connection nor the name or ARN of a connection's secret`);
    }
    this.connection = name;
    this.#secret = place ? connection : `${options.prefix ?? "entra"}/connections/${connection}`;
    this.#window = options.window ?? 30 * MINUTE;
    this.#client = options.client ?? newClient(arn?.[1]);
    const now = options.now ?? Date.now;
    this.#stored = new Kept({
      now,
      read: () => this.#read(),
      due: (stored) => this.#refreshed(stored),
      ends: (stored) => stored.ends,
      gone: (stored) => this.#expired(stored),
    });
    const never = () => Number.POSITIVE_INFINITY;
    const gone = () => new Error("unreachable");
    this.#scope = new Kept({ now, read: () => this.#readScope(), due: never, ends: never, gone }, options.scope);
  }

  /**
   * Returns a token that has not expired. Without scopes, it is the connection's whatever its scope.
   * @throws EntraConnectorError
   */
  async getToken(scopes: string | string[] = [], options: GetTokenOptions = {}): Promise<AccessToken> {
    if (options.claims) {
      throw this.#fail("refused", "a stored token cannot answer a claims challenge");
    }
    const asked = [scopes].flat();
    if (asked[0] !== undefined) {
      const [scope] = await this.#scope.get();
      if (asked.length > 1 || normal(asked[0]) !== normal(scope)) {
        throw this.#fail("refused", `its scope is ${scope}, not ${asked.join(" ")}`);
      }
    }
    const [{ token, tenant, ends }, again] = await this.#stored.get();
    if (options.tenantId && options.tenantId.toLowerCase() !== tenant.toLowerCase()) {
      throw this.#fail("refused", `its tenant is ${tenant}, not ${options.tenantId}`);
    }
    const shown = { expiresOnTimestamp: ends, refreshAfterTimestamp: again, tokenType: "Bearer" as const };
    return quiet({ token, ...shown }, shown);
  }

  /** Returns the six values by their keys, of a token that has not expired. They print as their keys. */
  async values(): Promise<Record<string, string>> {
    const [{ values }] = await this.#stored.get();
    return quiet({ ...values }, Object.keys(values));
  }

  /**
   * Says when the connector will have refreshed a token. It is due with less than the window left, or
   * than half of its life where that is shorter, and the next sweep refreshes it.
   */
  #refreshed({ ends, life }: Stored): number {
    return ends - Math.max(Math.min(this.#window, Math.floor(life / 2) * 1000) - SWEEP, 0);
  }

  #expired({ ends }: Stored): Error {
    const at = new Date(ends).toISOString().replace(".000", "");
    return this.#fail("expired", `the stored token has expired: the connector is behind: it ended at ${at}`);
  }

  async #read(): Promise<Stored> {
    const command = new GetSecretValueCommand({ SecretId: this.#secret });
    const { SecretString: text } = await this.#client.send(command, time()).catch((error) => this.#failed(error));
    const stored = parse(text);
    const values: Record<string, string> = {};
    for (const [key, form] of Object.entries(SIX)) {
      const value = stored?.[key];
      if (typeof value !== "string" || !form.test(value)) {
        throw this.#malformed(stored ? `${key} is missing or wrong` : "it is not a JSON object");
      }
      values[key] = value;
    }
    const of = (key: string) => values[KEY + key] ?? "";
    return {
      values,
      token: of("ACCESS_TOKEN"),
      tenant: of("TENANT_ID"),
      ends: Number(of("EXPIRES_AT")) * 1000,
      life: Number(of("EXPIRES_IN")),
    };
  }

  async #readScope(): Promise<string> {
    const command = new DescribeSecretCommand({ SecretId: this.#secret });
    const { Tags: tags } = await this.#client.send(command, time()).catch((error) => this.#failed(error));
    const tag = tags?.find(({ Key }) => Key === SCOPE_TAG)?.Value;
    if (tag === undefined) {
      throw this.#malformed(`it has no tag ${SCOPE_TAG}`);
    }
    const resource = tag.replace(/=([0-9A-F]{2})/g, (_, hex) => String.fromCharCode(Number.parseInt(hex, 16)));
    return `${resource}/.default`;
  }

  #failed(error: Error): never {
    const cause = `${this.#secret}: ${error.name}: ${error.message}`;
    switch (error.name) {
      case "ResourceNotFoundException":
      case "InvalidRequestException": // while it is being deleted
        throw this.#fail("not_found", `there is no such secret, or it has no token: ${cause}`, error);
      case "AccessDeniedException":
        throw this.#fail("not_permitted", `AWS does not permit it: ${cause}`, error);
      default:
        throw this.#fail("unavailable", `the secret cannot be read: ${cause}`, error);
    }
  }

  #malformed(what: string): EntraConnectorError {
    return this.#fail("malformed", `the secret is not as the connector writes it: ${what}`);
  }

  #fail(kind: ErrorKind, what: string, cause?: Error): EntraConnectorError {
    return new EntraConnectorError(kind, `entra-connector: connection ${this.connection}: ${what}`, { cause });
  }
}

/** Makes scopes that Entra takes for the same equal. */
function normal(scope: string): string {
  return scope.toLowerCase().replace("//.default", "/.default");
}

/** Returns nothing instead of the parser's error, which quotes the text. */
function parse(text: string | undefined): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text ?? "");
    return typeof value === "object" && value && !Array.isArray(value) ? { ...value } : undefined;
  } catch {
    return undefined;
  }
}

/** Has console.log and JSON.stringify show something else. */
function quiet<T extends object>(value: T, shown: object): T {
  const show = { value: () => shown };
  return Object.defineProperties(value, { toJSON: show, [Symbol.for("nodejs.util.inspect.custom")]: show });
}

function time() {
  return { abortSignal: AbortSignal.timeout(READ_TIMEOUT) };
}

function newClient(region: string | undefined): SecretsManagerClient {
  return new SecretsManagerClient(region ? { region } : {});
}
