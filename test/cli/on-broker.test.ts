import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { BatonClient } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { isAlive } from "../support/processes.ts";
import { until, within } from "../support/wait.ts";
import { cli, type RunOptions, startCli } from "./run-cli.ts";

let broker: TestBroker;
let client: BatonClient;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "baton-cli-"));
  broker = await startBroker();
  client = new BatonClient({ address: broker.address });
});

afterAll(async () => {
  client.close();
  await broker.stop();
  await rm(folder, { recursive: true });
});

const baton = (args: readonly string[], options: RunOptions = {}) =>
  cli(args, { ...options, env: { BATON_ADDR: broker.address, ...options.env } });

const lines = (text: string) => text.trimEnd().split("\n");

describe("baton put, get and delete", () => {
  it("put prints the id, get shows the job, delete removes it", async () => {
    const args = [
      "put",
      "mail",
      "hello",
      "--header",
      "tenant=acme",
      "--header",
      "x=a=b",
      "--priority",
      "7",
      "--delay",
      "1h",
    ];
    const put = await baton(args);
    expect(put).toMatchObject({ code: 0, stderr: "", stdout: expect.stringMatching(/^[0-9a-f-]{36}\n$/) });
    const id = put.stdout.trim();
    const { stdout } = await baton(["get", "mail", id]);
    expect(stdout).toMatch(/^queue +mail$/m);
    expect(stdout).toMatch(/^state +SCHEDULED$/m);
    expect(stdout).toMatch(/^header tenant +acme$/m);
    expect(stdout).toMatch(/^header x +a=b$/m);
    expect(stdout).toMatch(/^payload +hello$/m);
    expect(await baton(["delete", "mail", id])).toMatchObject({ code: 0, stdout: "deleted, was SCHEDULED\n" });
    expect(await baton(["delete", "mail", id])).toMatchObject({ code: 0, stdout: "there was no such job\n" });
    expect(await baton(["get", "mail", id])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("JOB_NOT_FOUND"),
    });
  });

  it("get says when the payload is left out beside a large result, and shows it with --omit-result", async () => {
    const text = "x".repeat(3 * 1024 * 1024);
    await client.put({ queue: "large", id: "1", payload: text });
    const [job] = await client.reserve({ queues: ["large"] });
    await client.release(job?.leaseToken ?? "", { outcome: "completed", result: text });
    expect((await baton(["get", "large", "1"])).stdout).toMatch(/^payload +\(left out.*--omit-result/m);
    const { stdout } = await baton(["get", "large", "1", "--omit-result"]);
    expect(stdout).toMatch(/^payload +x{1000}/m);
    expect(stdout).not.toMatch(/^result /m);
  });

  it("print the contract's JSON with --json", async () => {
    const put = await baton(["put", "mail", "--json", "--id", "j1", "hi"]);
    expect(JSON.parse(put.stdout)).toEqual({ jobId: "j1", created: true, state: "JOB_STATE_READY" });
    const got = await baton(["get", "mail", "j1", "--json"]);
    expect(lines(got.stdout)).toHaveLength(1);
    expect(JSON.parse(got.stdout)).toMatchObject({ id: "j1", payload: { text: "hi" }, state: "JOB_STATE_READY" });
    const taken = await baton(["put", "mail", "--json", "--id", "j1", "hi"]);
    expect(taken.code).toBe(1);
    expect(JSON.parse(taken.stderr)).toMatchObject({
      error: { reason: "JOB_EXISTS", metadata: { state: expect.any(String) } },
    });
    const kept = await baton(["put", "mail", "--json", "--id", "j1", "--on-conflict", "keep", "hi"]);
    expect(JSON.parse(kept.stdout)).toMatchObject({ created: false });
  });

  it("put reads its payload from stdin, byte for byte", async () => {
    for (const args of [
      ["put", "pipe", "--id", "1", "--on-conflict", "replace"],
      ["put", "pipe", "-", "--id", "1", "--on-conflict", "replace"],
    ]) {
      expect((await baton(args, { stdin: "ünï\r\n\0" })).code).toBe(0);
      expect((await client.get("pipe", "1")).payload.text()).toBe("ünï\r\n\0");
    }
    const bytes = new Uint8Array([255, 0, 128, 10]);
    await baton(["put", "pipe", "--id", "2"], { stdin: bytes });
    expect([...(await client.get("pipe", "2")).payload.bytes()]).toEqual([...bytes]);
    expect((await baton(["get", "pipe", "2"])).stdout).toContain("4 bytes, base64: /wCACg==");
  });

  it("say which field the broker refused", async () => {
    const { code, stderr } = await baton(["put", "no spaces", "x"]);
    expect(code).toBe(1);
    expect(stderr).toContain("INVALID_ARGUMENT/BAD_REQUEST");
    expect(stderr).toMatch(/^ {2}queue: /m);
  });
});

describe("baton work", () => {
  it("gives the job to the command, and its stdout to the job", async () => {
    const headers = { "x-tenant.id": "acme", "x-odd": 'a "b"\nc' };
    await client.put({ queue: "work", id: "1", payload: "in", headers });
    const command =
      'printf "%s|%s|%s|%s|%s|" "$BATON_QUEUE" "$BATON_JOB_ID" "$BATON_ATTEMPT" "$BATON_HEADER_X_TENANT_ID" "$BATON_HEADERS"; cat; echo warn >&2';
    const worked = await baton(["work", "work", "--exec", command, "--once"]);
    expect(worked).toMatchObject({ code: 0, stderr: "warn\n" });
    expect(worked.stdout).toBe("work 1 attempt 1 completed, now COMPLETED\n");
    const [queue, id, attempt, tenant, json, payload] = (await client.get("work", "1")).result?.text().split("|") ?? [];
    expect({ queue, id, attempt, tenant, payload }).toEqual({
      queue: "work",
      id: "1",
      attempt: "1",
      tenant: "acme",
      payload: "in",
    });
    expect(JSON.parse(json ?? "")).toEqual(headers);
  });

  it("takes one job and no more with --once", async () => {
    await client.putMany([1, 2, 3].map((n) => ({ queue: "once", id: String(n) })));
    expect((await baton(["work", "once", "--exec", "true", "--once"])).code).toBe(0);
    const jobs = await Promise.all(["1", "2", "3"].map((id) => client.get("once", id)));
    expect(jobs.map(({ state, failures }) => `${state} ${failures}`)).toEqual(["COMPLETED 0", "READY 0", "READY 0"]);
  });

  it.each([
    ["exit 3", "RETRYING", { type: "EXIT_3", message: "the command exited with 3", permanent: false }],
    ["echo why >&2; exit 1", "RETRYING", { type: "EXIT_1", message: "why", permanent: false }],
    ["echo never >&2; exit 100", "FAILED", { type: "EXIT_100", message: "never", permanent: true }],
    [
      "kill -KILL $$",
      "RETRYING",
      { type: "SIGNAL_SIGKILL", message: "the command was ended by SIGKILL", permanent: false },
    ],
    ["no-such-command-here 2>/dev/null", "RETRYING", { type: "EXIT_127" }],
    ["head -c 5000000 /dev/zero; sleep 60", "FAILED", { type: "RESULT_TOO_LARGE", permanent: true }],
  ])("makes of %j a job that is %s", async (command, state, error) => {
    const { jobId } = await client.put({ queue: "exit", retry: { initialBackoffMs: 3_600_000 } });
    expect((await baton(["work", "exit", "--exec", command, "--once"])).code).toBe(1);
    expect(await client.get("exit", jobId)).toMatchObject({ state, error });
  });

  it("keeps the end of a long stderr as the message", async () => {
    const { jobId } = await client.put({ queue: "stderr" });
    const command = "head -c 300000 /dev/zero | tr '\\0' x >&2; printf ' the end' >&2; exit 1";
    await baton(["work", "stderr", "--exec", command, "--once"]);
    const { error } = await client.get("stderr", jobId);
    expect(error?.message.endsWith("xxx the end")).toBe(true);
    expect(error?.message.length).toBe(16 * 1024);
  });

  it("completes a job of 3 MiB in and out whose command does not wait for its payload", async () => {
    const payload = new Uint8Array(3 * 1024 * 1024).fill(7);
    await client.putMany([
      { queue: "large", id: "unread", payload },
      { queue: "large", id: "copied", payload },
    ]);
    await baton(["work", "large", "--exec", "true", "--once"]);
    await baton(["work", "large", "--exec", "cat", "--once"]);
    expect((await client.get("large", "unread")).state).toBe("COMPLETED");
    const { state, result } = await client.get("large", "copied");
    expect(state).toBe("COMPLETED");
    expect(Buffer.from(result?.bytes() ?? []).equals(payload)).toBe(true);
  });

  it("prints one JSON object for each job with --json", async () => {
    await client.put({ queue: "json", id: "1" });
    const { stdout } = await baton(["work", "json", "--exec", "true", "--once", "--json"]);
    expect(JSON.parse(stdout)).toMatchObject({
      queue: "json",
      id: "1",
      attempt: 1,
      outcome: "completed",
      state: "JOB_STATE_COMPLETED",
    });
  });

  it("ends the command and all it has started when its job is deleted", async () => {
    const pids = join(folder, "pids");
    await client.put({ queue: "kill", id: "1" });
    const command = `sleep 1000 & echo "$$ $!" > ${pids}; wait`;
    const worker = startCli(["work", "kill", "--exec", command], { env: { BATON_ADDR: broker.address } });
    const written = await until(async () => existsSync(pids) && (await readFile(pids, "utf8")).trim(), {
      what: "the command",
    });
    await client.delete("kill", "1");
    for (const pid of written.split(" ")) {
      await until(() => !isAlive(Number(pid)), { what: `process ${pid} to end` });
    }
    worker.child.kill("SIGTERM");
    expect(await within(worker.finished, { what: "the worker to exit" })).toMatchObject({ code: 0 });
  });

  it("lets the command at work finish on SIGTERM, and takes no more", async () => {
    const begun = join(folder, "begun");
    const go = join(folder, "go");
    await client.put({ queue: "drain", id: "1" });
    const command = `touch ${begun}; while [ ! -e ${go} ]; do sleep 0.05; done; echo finished`;
    const worker = startCli(["work", "drain", "--exec", command], { env: { BATON_ADDR: broker.address } });
    await until(() => existsSync(begun), { what: "the command" });
    worker.child.kill("SIGTERM");
    const isQuiet = async () => (await client.queues.workers({ queue: "drain" })).items.some(({ quiet }) => quiet);
    await until(isQuiet, { what: "the worker to be quiet" });
    await client.put({ queue: "drain", id: "2" });
    await writeFile(go, "");
    expect(await within(worker.finished, { what: "the worker to exit" })).toMatchObject({ code: 0 });
    expect((await client.get("drain", "1")).result?.text()).toBe("finished\n");
    expect(await client.get("drain", "2")).toMatchObject({ state: "READY", failures: 0 });
  });

  it("gives the job back at once on a second signal", async () => {
    const begun = join(folder, "begun-2");
    await client.put({ queue: "twice", id: "1" });
    const worker = startCli(["work", "twice", "--exec", `touch ${begun}; sleep 1000`], {
      env: { BATON_ADDR: broker.address },
    });
    await until(() => existsSync(begun), { what: "the command" });
    worker.child.kill("SIGTERM");
    worker.child.kill("SIGINT");
    expect(await within(worker.finished, { what: "the worker to exit" })).toMatchObject({ code: 0 });
    expect(await client.get("twice", "1")).toMatchObject({ state: "READY", failures: 0 });
  });

  it("exits with 1 and the violations when the broker refuses the subscription", async () => {
    const { code, stderr } = await baton(["work", "no spaces", "--exec", "true"]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/queues\[0\]/);
  });
});

describe("baton serve", () => {
  it("says when it is ready, serves, and exits with 0 on SIGTERM", async () => {
    const server = startCli(["serve", "--grpc-addr", "127.0.0.1:0", "--namespace", "served", "--drain-grace", "2s"], {
      env: { BATON_REDIS_URL: broker.redisUrl },
    });
    try {
      const ready = await until(() => /^baton ready: grpc (\S+)\n$/.exec(server.stdout()), {
        what: "the broker",
        withinMs: 10_000,
      });
      const put = await cli(["put", "q", "x", "--addr", ready[1] ?? ""]);
      expect(put.code).toBe(0);
      server.child.kill("SIGTERM");
      const ended = await within(server.finished, { what: "the broker to exit" });
      expect(ended).toMatchObject({ code: 0, signal: null });
    } finally {
      server.child.kill("SIGKILL");
    }
  });

  it("ends at once on a second signal", async () => {
    const server = startCli(["serve", "--grpc-addr", "127.0.0.1:0", "--namespace", "again", "--drain-grace", "1m"], {
      env: { BATON_REDIS_URL: broker.redisUrl },
    });
    const ready = await until(() => /^baton ready: grpc (\S+)\n$/.exec(server.stdout()), {
      what: "the broker",
      withinMs: 10_000,
    });
    const own = new BatonClient({ address: ready[1] ?? "" });
    try {
      // A job in hand keeps the broker waiting.
      await own.put({ queue: "q", id: "1" });
      const events = own.subscribe({ queues: ["q"] });
      await events.next();
      expect((await events.next()).value).toMatchObject({ type: "jobs" });
      server.child.kill("SIGTERM");
      await until(() => server.stderr().includes("draining"), { what: "the drain to begin" });
      server.child.kill("SIGTERM");
      expect(await within(server.finished, { what: "the broker to exit" })).toMatchObject({ code: 143, signal: null });
    } finally {
      own.close();
      server.child.kill("SIGKILL");
    }
  });

  it("exits with 1 and a sentence when its address is taken", async () => {
    const { code, stderr } = await cli(["serve", "--grpc-addr", broker.address], {
      env: { BATON_REDIS_URL: broker.redisUrl },
    });
    expect(code).toBe(1);
    expect(stderr).toMatch(/^baton: cannot listen on .*: another program does already/m);
  });
});
