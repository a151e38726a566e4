// A Secrets Manager with one secret, and the cases that the clients of all languages share.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import {
  DescribeSecretCommand,
  GetSecretValueCommand,
  type SecretsManagerClient,
} from "@aws-sdk/client-secrets-manager";

export interface Store {
  token?: string;
  ends?: number;
  life?: number;
  set?: Record<string, unknown>;
  string?: string;
  binary?: boolean;
  error?: string;
}

export interface Case {
  name: string;
  connection?: string;
  prefix?: string;
  secret?: string;
  scope?: string;
  scope_tag?: string | null | { error: string };
  window?: number;
  invalid?: boolean;
  steps?: {
    at: number;
    store?: Store;
    ask?: { scopes?: string[]; tenant?: string; claims?: string };
    callers?: number;
    answer: { token?: string; ends?: number; again?: number; error?: string; says?: string };
    reads?: number;
    describes?: number;
  }[];
}

export interface Day {
  name: string;
  life: number;
  stored: [at: number, ends: number][];
  failing: [from: number, to: number][];
}

function load<T>(file: string): T {
  return JSON.parse(readFileSync(new URL(`../../../${file}`, import.meta.url), "utf8"));
}

export const { epoch, cases } = load<{ epoch: number; cases: Case[] }>("cases.json");
export const days = load<Day[]>("days.json");

export function six(token: string, ends: number, life: number): Record<string, unknown> {
  const values = {
    TOKEN_TYPE: "Bearer",
    EXPIRES_AT: `${ends}`,
    EXPIRES_IN: `${life}`,
    EXT_EXPIRES_IN: `${life}`,
    ACCESS_TOKEN: token,
    TENANT_ID: "c0000000-0000-4000-8000-000000000001",
  };
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [`PAN_SEC_MICROSOFT_ENTRA_${key}`, value]));
}

export class Manager {
  store: Store = {};
  reads = 0;
  describes = 0;
  readonly tag: NonNullable<Case["scope_tag"]> | null;
  readonly secret: string;

  constructor({
    secret = "entra/connections/default/contoso",
    scope_tag = "https://graph.microsoft.com",
  }: Partial<Case>) {
    this.secret = secret;
    this.tag = scope_tag;
  }

  get client(): Pick<SecretsManagerClient, "send"> {
    return { send: (command: unknown) => this.#send(command) } as Pick<SecretsManagerClient, "send">;
  }

  async #send(command: unknown): Promise<object> {
    assert(command instanceof GetSecretValueCommand || command instanceof DescribeSecretCommand);
    assert.equal(command.input.SecretId, this.secret);
    await setImmediate(); // everybody else who can go on does so meanwhile
    return command instanceof GetSecretValueCommand ? this.value() : this.#describe();
  }

  value(): object {
    this.reads++;
    const { token, ends = 0, life = 0, string, binary, error, set } = this.store;
    if (error !== undefined) {
      throw refusal(error, "GetSecretValue");
    }
    if (binary) {
      return { SecretBinary: new Uint8Array() };
    }
    const values: Record<string, unknown> = { ...six(`token-${token}`, epoch + ends, life), ...set };
    return {
      SecretString: string ?? JSON.stringify(values, (_, value) => value ?? undefined),
    };
  }

  #describe(): object {
    this.describes++;
    if (typeof this.tag === "object" && this.tag) {
      throw refusal(this.tag.error, "DescribeSecret");
    }
    const tags = [{ Key: "another", Value: "x" }];
    return { Tags: this.tag === null ? tags : [...tags, { Key: "entra-connector:scope", Value: this.tag }] };
  }
}

function refusal(name: string, operation: string): Error {
  return Object.assign(new Error(`not authorized to perform secretsmanager:${operation}`), { name });
}
