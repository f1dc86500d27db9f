import { type AddressInfo, createServer } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { isSameHost, parseRetryAfter } from "../../src/cli/web-hook.ts";
import { BatonClient, type Job } from "../../src/client/index.ts";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { until, within } from "../support/wait.ts";
import { type HookRequest, type HookServer, startHook, writeWithoutEnd } from "./hook-server.ts";
import { cli, startCli } from "./run-cli.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

let broker: TestBroker;
let client: BatonClient;
const hooks: HookServer[] = [];

beforeAll(async () => {
  broker = await startBroker();
  client = new BatonClient({ address: broker.address });
});

afterEach(async () => {
  await Promise.all(hooks.splice(0).map((hook) => hook.stop()));
});

afterAll(async () => {
  client.close();
  await broker.stop();
});

async function hookThat(answer: (request: HookRequest) => void): Promise<HookServer> {
  const hook = await startHook(answer);
  hooks.push(hook);
  return hook;
}

const args = (queue: string, url: string, ...rest: string[]) => ["work", queue, "--url", url, ...rest];
const env = () => ({ BATON_ADDR: broker.address });

/** One job for the hook, which the retry policy would let run again in 48 to 60 minutes. */
async function workOnce(queue: string, url: string, ...rest: string[]) {
  const { jobId } = await client.put({ queue, payload: "in", retry: { initialBackoffMs: HOUR_MS } });
  const worked = await cli(args(queue, url, "--once", ...rest), { env: env() });
  return { worked, job: await client.get(queue, jobId) };
}

const inMs = (job: Job) => (job.runAt?.getTime() ?? Number.NaN) - Date.now();

describe("baton work --url", () => {
  it("posts the payload byte for byte, says which job it is, and keeps the answer as the result", async () => {
    const hook = await hookThat(({ response }) => response.writeHead(201).end('{"sent":true}'));
    const payload = new Uint8Array([0, 255, 13, 10, 128]);
    await client.put({
      queue: "post",
      id: "größe 50%/1",
      payload,
      contentType: "image/png",
      headers: { Tenant: "acme" },
    });
    const worked = await cli(args("post", `${hook.origin}/in?a=b#c`, "--once"), { env: env() });
    expect(worked).toMatchObject({ code: 0, stderr: "" });
    const job = await client.get("post", "größe 50%/1");
    expect(job.state).toBe("COMPLETED");
    expect(job.result?.text()).toBe('{"sent":true}');
    const [{ message, body } = expect.fail("no post came")] = hook.requests;
    expect({ method: message.method, url: message.url, body: [...body] }).toEqual({
      method: "POST",
      url: "/in?a=b",
      body: [...payload],
    });
    expect(message.headers).toMatchObject({
      "content-type": "image/png",
      "content-length": "5",
      "baton-queue": "post",
      "baton-job-id": "gr%C3%B6%C3%9Fe%2050%25/1",
      "baton-attempt": "1",
      "baton-header-tenant": "acme",
      "idempotency-key": `post/gr%C3%B6%C3%9Fe%2050%25/1/${job.putAt?.getTime()}`,
    });
    expect(decodeURIComponent(String(message.headers["baton-job-id"]))).toBe("größe 50%/1");
    expect(message.headers).not.toHaveProperty("baton-headers");
  });

  it("names the type of a payload that names none by what its bytes are", async () => {
    const hook = await hookThat(({ response }) => response.end());
    for (const [payload, type] of [
      ["ünï", "text/plain; charset=utf-8"],
      [new Uint8Array([255]), "application/octet-stream"],
      ["", undefined],
    ] as const) {
      await client.put({ queue: "types", payload });
      await cli(args("types", hook.origin, "--once"), { env: env() });
      expect(hook.requests.at(-1)?.message.headers["content-type"]).toBe(type);
    }
  });

  it("keeps the answer's content-type with the result, as far as a result can carry it", async () => {
    for (const [type, kept] of [
      ["application/json; charset=utf-8", "application/json; charset=utf-8"],
      [`text/plain; x=${"a".repeat(300)}`, ""],
      ["text/plain;\tx=1", ""],
    ] as const) {
      const hook = await hookThat(({ response }) => response.writeHead(200, { "content-type": type }).end("{}"));
      const { worked, job } = await workOnce("answer-type", hook.origin);
      expect({ code: worked.code, type: job.result?.contentType, text: job.result?.text() }).toEqual({
        code: 0,
        type: kept,
        text: "{}",
      });
    }
  });

  it("completes a job without result on 204", async () => {
    const hook = await hookThat(({ response }) => response.writeHead(204).end());
    const { worked, job } = await workOnce("empty", hook.origin);
    expect(worked.code).toBe(0);
    expect(job.state).toBe("COMPLETED");
    expect(job.result?.bytes().length ?? 0).toBe(0);
  });

  it("keeps a result of 3 MiB, and completes without result, and with a warning, when the answer never ends", async () => {
    const largest = Buffer.alloc(3 * 1024 * 1024, 7);
    const exact = await hookThat(({ response }) => response.end(largest));
    const { job } = await workOnce("large", exact.origin);
    expect(Buffer.from(job.result?.bytes() ?? []).equals(largest)).toBe(true);

    let written: ReturnType<typeof writeWithoutEnd> | undefined;
    const endless = await hookThat(({ response }) => {
      written = writeWithoutEnd(response);
    });
    const { worked, job: done } = await workOnce("endless", endless.origin);
    expect(worked).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/^baton: endless \S+: .* completed without$/m),
    });
    expect(done.state).toBe("COMPLETED");
    expect(done.result?.bytes().length ?? 0).toBe(0);
    await until(() => written?.closed(), { what: "the connection to be closed" });
    expect(written?.bytes()).toBeLessThan(64 * 1024 * 1024);
  });

  it.each([
    [429, "RETRYING", false],
    [408, "RETRYING", false],
    [425, "RETRYING", false],
    [500, "RETRYING", false],
    [503, "RETRYING", false],
    [404, "FAILED", true],
    [401, "FAILED", true],
    [304, "RETRYING", false],
  ])("makes of the answer %i a job that is %s", async (status, state, permanent) => {
    const hook = await hookThat(({ response }) => response.writeHead(status).end());
    const { worked, job } = await workOnce(`status-${status}`, hook.origin);
    expect(worked.code).toBe(1);
    expect(job).toMatchObject({ state, error: { type: `HTTP_${status}`, permanent } });
    expect(job.error?.message).toContain(`the hook answered ${status}`);
    if (state === "RETRYING") expect(inMs(job)).toBeGreaterThan(0.7 * HOUR_MS);
  });

  it("keeps the start of the answer as the message, whole characters only, and reads no endless one", async () => {
    const short = await hookThat(({ response }) => response.writeHead(422).end("no such customer\n"));
    expect((await workOnce("said", short.origin)).job.error?.message).toBe("no such customer");
    const long = await hookThat(({ response }) => {
      response.writeHead(500).write(`x${"ü".repeat(10_000)}`);
      writeWithoutEnd(response);
    });
    const { job } = await workOnce("said", long.origin);
    expect(job.error).toMatchObject({ type: "HTTP_500", message: `x${"ü".repeat(2_047)}` });
  });

  it.each([
    ["seconds", () => "7200", 2 * HOUR_MS],
    ["a date", () => new Date(Date.now() + 3 * HOUR_MS).toUTCString(), 3 * HOUR_MS],
    ["more than 365 days", () => "99999999999999999999", 365 * DAY_MS],
    ["nonsense, which is ignored", () => "soon", 0.9 * HOUR_MS],
  ])("tries again when Retry-After says: %s", async (_what, retryAfter, expectedMs) => {
    const hook = await hookThat(({ response }) => response.writeHead(429, { "retry-after": retryAfter() }).end("slow"));
    const { job } = await workOnce("later", hook.origin);
    expect(job).toMatchObject({ state: "RETRYING", error: { type: "HTTP_429", message: "slow" } });
    const toleranceMs = expectedMs < HOUR_MS ? 0.12 * HOUR_MS : 15_000;
    expect(Math.abs(inMs(job) - expectedMs)).toBeLessThan(toleranceMs);
    await client.delete("later", job.id);
  });

  it("follows 307 and 308 on the same host with the same post, and its own headers", async () => {
    const hook = await hookThat(({ message, response }) => {
      if (message.url === "/1") response.writeHead(307, { location: "/2" }).end("moved");
      else if (message.url === "/2") response.writeHead(308, { location: `${hook.origin}/3` }).end();
      else response.end("here");
    });
    const { job } = await workOnce("moved", `${hook.origin}/1`, "--header", "X-Key: k");
    expect(job.result?.text()).toBe("here");
    const seen = hook.requests.map(({ message, body }) => [
      message.method,
      message.url,
      message.headers["x-key"],
      `${body}`,
    ]);
    expect(seen).toEqual(["/1", "/2", "/3"].map((url) => ["POST", url, "k", "in"]));
  });

  it("gives up after five redirects, to try again later", async () => {
    const hook = await hookThat(({ response }) => response.writeHead(307, { location: "/again" }).end());
    const { job } = await workOnce("circle", hook.origin);
    expect(job).toMatchObject({ state: "RETRYING", error: { type: "TOO_MANY_REDIRECTS" } });
    expect(hook.requests.length).toBe(6);
  });

  it.each([301, 302, 303])("does not follow %i, which would make a GET of the post", async (status) => {
    const hook = await hookThat(({ response }) => response.writeHead(status, { location: "/other" }).end());
    const { job } = await workOnce(`get-${status}`, hook.origin);
    expect(job).toMatchObject({ state: "RETRYING", error: { type: `HTTP_${status}` } });
    expect(hook.requests.length).toBe(1);
  });

  it.each([302, 307, 308])("never follows %i to another host: the job fails for good, and says so", async (status) => {
    const other = await hookThat(({ response }) => response.end());
    const to = other.origin.replace("://", "://user:s3cret@");
    const hook = await hookThat(({ response }) => response.writeHead(status, { location: `${to}/s3cret` }).end());
    const { worked, job } = await workOnce(`elsewhere-${status}`, hook.origin);
    expect(job).toMatchObject({ state: "FAILED", error: { type: "REDIRECT_TO_OTHER_HOST", permanent: true } });
    expect(job.error?.message).toContain(`to ${other.origin}: a post never follows to another host`);
    expect(job.error?.message + worked.stdout + worked.stderr).not.toContain("s3cret");
    expect(other.connections()).toBe(0);
  });

  it.each([
    ["never answers", () => {}],
    ["never ends its answer", ({ response }: HookRequest) => response.writeHead(200).write("begun")],
  ])("fails with TIMEOUT when the hook %s", async (_what, answer) => {
    const hook = await hookThat(answer);
    const { job } = await workOnce("silent", hook.origin, "--post-timeout", "300ms");
    expect(job).toMatchObject({ state: "RETRYING", error: { type: "TIMEOUT" } });
    expect(job.error?.message).toBe(`no whole answer from ${hook.origin} within 300ms`);
  });

  it("counts the time of a refusal whose body never ends, and keeps the status and Retry-After", async () => {
    const hook = await hookThat(({ response }) => response.writeHead(503, { "retry-after": "7200" }).write("busy"));
    const { job } = await workOnce("drip", hook.origin, "--post-timeout", "300ms");
    expect(job.error).toMatchObject({ type: "HTTP_503", message: "busy" });
    expect(inMs(job)).toBeGreaterThan(1.9 * HOUR_MS);
  });

  it("fails with CONNECT when nobody is there", async () => {
    const hook = await hookThat(() => {});
    await hook.stop();
    const { job } = await workOnce("nobody", `${hook.origin}/s3cret?s3cret`);
    expect(job).toMatchObject({ state: "RETRYING", error: { type: "CONNECT" } });
    expect(job.error?.message).toContain(`cannot reach ${hook.origin}: connect ECONNREFUSED`);
    expect(job.error?.message).not.toContain("s3cret");
  });

  it("fails with CONNECTION_LOST when a success breaks off, because its work may not be done", async () => {
    const hook = await hookThat(({ response }) => {
      response.writeHead(200, { "content-length": "100" }).write("begun", () => response.destroy());
    });
    const { job } = await workOnce("broken", hook.origin);
    expect(job).toMatchObject({ state: "RETRYING", error: { type: "CONNECTION_LOST" } });
  });

  it("fails with BAD_ANSWER when what answers speaks no HTTP", async () => {
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.end("220 mail.example ready\r\n");
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const { job } = await workOnce("smtp", `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
      expect(job).toMatchObject({ state: "RETRYING", error: { type: "BAD_ANSWER" } });
    } finally {
      server.close();
    }
  });

  it("lets no job write headers of its own", async () => {
    const hook = await hookThat(({ response }) => response.end());
    const headers = {
      plain: "a b",
      "content-length": "0",
      evil: "x\r\nbaton-job-id: forged\r\n\r\nPOST /forged HTTP/1.1",
      "evil\r\nbaton-queue": "forged",
      "two words": "1",
      Twice: "1",
      twice: "2",
      padded: " x ",
      latin: "größe",
      wide: "日本\u2028\u007f",
    };
    await client.put({ queue: "inject", id: "1", payload: "in", headers });
    expect((await cli(args("inject", hook.origin, "--once"), { env: env() })).code).toBe(0);
    expect(hook.requests.length).toBe(1);
    const [{ message, body } = expect.fail("no post came")] = hook.requests;
    expect(body.toString()).toBe("in");
    const { plain, "content-length": length, ...others } = headers;
    const names = message.rawHeaders.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase());
    expect(names.filter((name) => name.startsWith("baton-")).sort()).toEqual(
      ["attempt", "header-content-length", "header-plain", "headers", "job-id", "queue"].map((name) => `baton-${name}`),
    );
    expect(message.headers).toMatchObject({ "baton-header-plain": plain, "baton-header-content-length": length });
    expect(message.headers).toMatchObject({ "baton-job-id": "1", "baton-queue": "inject", "content-length": "2" });
    const json = String(message.headers["baton-headers"]);
    expect(json).toMatch(/^[\x20-\x7e]+$/);
    expect(JSON.parse(json)).toEqual(others);
  });

  it("refuses for good to post headers that swell beyond 64 KiB", async () => {
    const hook = await hookThat(({ response }) => response.end());
    await client.put({ queue: "swell", id: "1", headers: { long: "ü".repeat(30_000) } });
    await cli(args("swell", hook.origin, "--once"), { env: env() });
    expect(await client.get("swell", "1")).toMatchObject({ state: "FAILED", error: { type: "HEADERS_TOO_LARGE" } });
    expect(hook.requests.length).toBe(0);
  });

  it("sends the hook's own headers, and a user in the address as Basic authorization", async () => {
    const hook = await hookThat(({ response }) => response.writeHead(500).end());
    await workOnce(
      "auth",
      hook.origin,
      "--header",
      "Authorization: Bearer s3cret",
      "--header",
      "Content-Type: text/x-own",
    );
    expect(hook.requests[0]?.message.headers).toMatchObject({
      authorization: "Bearer s3cret",
      "content-type": "text/x-own",
    });
    const { worked, job } = await workOnce("basic", hook.origin.replace("://", "://us%3Aer:s3cret%C3%BC@"));
    const expected = `Basic ${Buffer.from("us:er:s3cretü").toString("base64")}`;
    expect(hook.requests[1]?.message.headers.authorization).toBe(expected);
    expect(worked.stdout + worked.stderr + job.error?.message).not.toContain("s3cret");
  });

  it("never posts more jobs at once than --concurrency says", async () => {
    const ids = ["1", "2", "3", "4", "5", "6"];
    await client.putMany(ids.map((id) => ({ queue: "bound", id })));
    const open: HookRequest[] = [];
    let most = 0;
    const hook = await hookThat((request) => {
      open.push(request);
      most = Math.max(most, open.length);
    });
    const worker = startCli(args("bound", hook.origin, "--concurrency", "2"), { env: env() });
    try {
      for (const [index] of ids.entries()) {
        const expected = Math.min(2, ids.length - index);
        await until(() => open.length === expected, { what: `${expected} posts at once`, withinMs: 10_000 });
        open.shift()?.response.end();
      }
      await until(async () => (await client.get("bound", "6")).state === "COMPLETED", { what: "the last job" });
      expect(most).toBe(2);
    } finally {
      worker.child.kill("SIGTERM");
    }
    expect(await within(worker.finished, { what: "the worker to exit" })).toMatchObject({ code: 0, stderr: "" });
  });

  it("posts over one connection, and once more when the hook has closed it while it was idle", async () => {
    await client.putMany(["1", "2", "3"].map((id) => ({ queue: "alive", id, retry: { initialBackoffMs: HOUR_MS } })));
    const hook = await hookThat(({ message, response }) => {
      if (message.headers["baton-job-id"] === "3" && hook.requests.length === 3) message.socket.destroy();
      else response.end("done");
    });
    const worker = startCli(args("alive", hook.origin), { env: env() });
    try {
      await until(() => hook.requests.length === 4, { what: "the third job's second post", withinMs: 10_000 });
      expect(hook.connections()).toBe(2);
      await until(async () => (await client.get("alive", "3")).state === "COMPLETED", { what: "the third job" });
      expect(await client.get("alive", "3")).toMatchObject({ attempt: 1, failures: 0 });
    } finally {
      worker.child.kill("SIGTERM");
    }
    expect(await within(worker.finished, { what: "the worker to exit" })).toMatchObject({ code: 0 });
  });

  it("fails after one post when the hook closes a connection that is new", async () => {
    const hook = await hookThat(({ message }) => message.socket.destroy());
    const { job } = await workOnce("slammed", hook.origin);
    expect(job).toMatchObject({ state: "RETRYING", error: { type: "CONNECTION_LOST" } });
    expect(hook.requests.length).toBe(1);
  });

  it("breaks the post off when its job is deleted", async () => {
    await client.put({ queue: "cancel", id: "1" });
    const hook = await hookThat(() => {});
    const worker = startCli(args("cancel", hook.origin), { env: env() });
    try {
      const post = await until(() => hook.requests[0], { what: "the post", withinMs: 10_000 });
      await client.delete("cancel", "1");
      await until(() => post.response.destroyed, { what: "the post to be broken off" });
    } finally {
      worker.child.kill("SIGTERM");
    }
    expect(await within(worker.finished, { what: "the worker to exit" })).toMatchObject({ code: 0, stdout: "" });
  });

  it("lets the post at work finish on SIGTERM, and gives the job back on a second signal", async () => {
    for (const signals of [1, 2]) {
      const { jobId } = await client.put({ queue: "drain" });
      const hook = await hookThat(() => {});
      const worker = startCli(args("drain", hook.origin), { env: env() });
      const post = await until(() => hook.requests[0], { what: "the post", withinMs: 10_000 });
      worker.child.kill("SIGTERM");
      if (signals === 1) post.response.end("finished");
      else worker.child.kill("SIGINT");
      expect(await within(worker.finished, { what: "the worker to exit" })).toMatchObject({ code: 0 });
      const state = signals === 1 ? "COMPLETED" : "READY";
      expect(await client.get("drain", jobId)).toMatchObject({ state, failures: 0 });
    }
  });
});

describe("parseRetryAfter()", () => {
  const now = Date.parse("1994-11-06T08:00:00Z");

  it.each([
    ["0", 0],
    ["120", 120_000],
    ["Sun, 06 Nov 1994 08:01:00 GMT", 60_000],
    ["Sunday, 06-Nov-94 08:01:00 GMT", 60_000],
    ["Sun Nov  6 08:01:00 1994", 60_000],
    ["Sun, 06 Nov 1994 07:00:00 GMT", 0],
    ["Fri, 31 Dec 9999 23:59:59 GMT", 365 * DAY_MS],
  ])("reads %j", (text, expectedMs) => {
    expect(parseRetryAfter(text, now)).toBe(expectedMs);
  });

  it.each([undefined, "", "-1", "1.5", "1e9", "soon", "1994-11-06T08:01:00Z", "Sun, 99 Nov 1994 99:99:99 GMT"])(
    "ignores %j",
    (text) => {
      expect(parseRetryAfter(text, now)).toBe(undefined);
    },
  );
});

describe("isSameHost()", () => {
  it.each([
    ["http://h/a", "http://h:80/b", true],
    ["http://h/", "https://h/", true],
    ["http://H/", "http://h/", true],
    ["https://h/", "http://h/", false],
    ["http://h:8080/", "https://h/", false],
    ["http://h/", "https://h:8443/", false],
    ["http://h/", "http://h:81/", false],
    ["http://h/", "http://h.evil/", false],
    ["http://localhost/", "http://127.0.0.1/", false],
    ["http://h/", "ftp://h/", false],
    ["http://h/", "data:text/plain,x", false],
  ])("from %s to %s: %s", (from, to, expected) => {
    expect(isSameHost(new URL(from), new URL(to))).toBe(expected);
  });
});
