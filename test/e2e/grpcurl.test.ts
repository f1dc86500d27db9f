/** Every RPC by grpcurl, with nothing but reflection to go by: the proof that the contract is usable by hand. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startBroker, type TestBroker } from "../support/broker.ts";
import { until } from "../support/wait.ts";
import { attempt, call, converse, grpcurl, grpcurlPath, type Json, messages, open } from "./grpcurl.ts";
import { runProgram } from "./program.ts";

describe.skipIf(!grpcurlPath)("grpcurl", () => {
  let broker: TestBroker;
  let address: string;

  beforeAll(async () => {
    broker = await startBroker();
    address = broker.address;
  });

  afterAll(() => broker?.stop());

  /** The jobs of a Reserve's answer, or of a Subscribe's message. */
  const jobsOf = (answer: Json) => (answer.jobs ?? []) as Json[];

  async function reserveOne(queue: string, options: Json = {}): Promise<Json> {
    const [job] = jobsOf(await call(address, "Reserve", { queues: [{ name: queue }], ...options }));
    if (!job) throw new Error(`queue ${queue} has no job`);
    return job;
  }

  it("lists the services", async () => {
    expect((await grpcurl(address, "list")).trim().split("\n")).toEqual([
      "baton.v1.JobService",
      "baton.v1.QueueService",
      "baton.v1.ScheduleService",
      "grpc.health.v1.Health",
      "grpc.reflection.v1.ServerReflection",
      "grpc.reflection.v1alpha.ServerReflection",
    ]);
  });

  it("lists the methods of a service", async () => {
    const methods = [
      ...["Await", "Cancel", "Delete", "Extend", "Get", "List", "Put", "PutMany", "Release", "ReleaseMany"],
      ...["ReportProgress", "Reserve", "Retry", "Subscribe", "Watch", "Work"],
    ];
    const listed = (await grpcurl(address, "list", "baton.v1.JobService")).trim().split("\n").sort();
    expect(listed).toEqual(methods.map((method) => `baton.v1.JobService.${method}`));
  });

  it("describes a service, a method and a message, with their comments", async () => {
    const service = await grpcurl(address, "describe", "baton.v1.JobService");
    expect(service).toContain("// Puts jobs, hands them to workers, and shows what becomes of them.");
    expect(service).toContain(
      "rpc Subscribe ( .baton.v1.SubscribeRequest ) returns ( stream .baton.v1.SubscribeResponse );",
    );
    const method = await grpcurl(address, "describe", "baton.v1.JobService.Release");
    expect(method).toContain("// Errors: FAILED_PRECONDITION/LEASE_LOST");
    const message = await grpcurl(address, "describe", "baton.v1.PutRequest");
    expect(message).toContain("// 0 to 9, higher first. 0 is the default.\n  int32 priority = 5;");
    // What is imported is served as well: google's types and Baton's other file.
    expect(await grpcurl(address, "describe", "google.protobuf.Duration")).toContain("int64 seconds = 1;");
    expect(await grpcurl(address, "describe", "google.rpc.Status")).toContain(
      "repeated .google.protobuf.Any details = 3;",
    );
    expect(await grpcurl(address, "describe", "baton.v1.JobState")).toContain("JOB_STATE_RETRYING = 5;");
  });

  it("takes a job through Put, Reserve, Release, Get and Delete", async () => {
    const put = { queue: "mail", id: "1", payload: { text: "héllo" }, headers: { tenant: "acme" }, priority: 7 };
    expect(await call(address, "Put", put)).toEqual({ jobId: "1", created: true, state: "JOB_STATE_READY" });
    const job = await reserveOne("mail", { workerId: "hand", leaseDuration: "60s" });
    expect(job).toMatchObject({ ...put, attempt: 1, leaseToken: expect.any(String) });

    const release = { leaseToken: job.leaseToken, completed: { result: { text: "done", contentType: "text/plain" } } };
    expect(await call(address, "Release", release)).toEqual({ state: "JOB_STATE_COMPLETED" });
    expect(await call(address, "Release", release)).toEqual({ state: "JOB_STATE_COMPLETED" });
    expect(await call(address, "Get", { queue: "mail", id: "1" })).toMatchObject({
      job: {
        ...put,
        state: "JOB_STATE_COMPLETED",
        workerId: "hand",
        result: { text: "done", contentType: "text/plain" },
      },
    });
    expect(await call(address, "Delete", { queue: "mail", id: "1" })).toEqual({
      deleted: true,
      previousState: "JOB_STATE_COMPLETED",
    });
    expect(await call(address, "Delete", { queue: "mail", id: "1" })).toEqual({});
    const { code, stderr } = await attempt(address, "Get", { queue: "mail", id: "1" });
    expect(code).not.toBe(0);
    expect(stderr).toContain("Code: NotFound");
    expect(stderr).toContain('"reason": "JOB_NOT_FOUND"');
  });

  it("passes bytes as base64, unchanged", async () => {
    const data = Buffer.from([0, 255, 10, 128]).toString("base64");
    await call(address, "Put", { queue: "bytes", payload: { data } });
    expect(await reserveOne("bytes")).toMatchObject({ payload: { data } });
  });

  it("fails a job, which is RETRYING until its time, and returns one with a delay", async () => {
    await call(address, "PutMany", {
      jobs: [
        { queue: "ends", id: "fails" },
        { queue: "ends", id: "returns" },
      ],
    });
    const [fails, returns] = [await reserveOne("ends"), await reserveOne("ends")];
    const failed = { message: "no route", type: "RouteError", retryAfter: "3600s" };
    expect(await call(address, "Release", { leaseToken: fails.leaseToken, failed })).toEqual({
      state: "JOB_STATE_RETRYING",
      runAt: expect.any(String),
    });
    expect(await call(address, "Release", { leaseToken: returns.leaseToken, returned: { delay: "3600s" } })).toEqual({
      state: "JOB_STATE_SCHEDULED",
      runAt: expect.any(String),
    });
    expect(await call(address, "Get", { queue: "ends", id: "fails" })).toMatchObject({
      job: { failures: 1, error: { message: "no route", type: "RouteError" } },
    });
  });

  it("puts a batch of which one job is bad: the answer says which, and the others are in", async () => {
    const jobs = [
      { queue: "batch", id: "a" },
      { queue: "batch", id: "b", priority: 10 },
      { queue: "batch", id: "c" },
    ];
    const { results } = await call(address, "PutMany", { jobs });
    expect(results).toMatchObject([
      { job: { jobId: "a", created: true } },
      { error: { code: 3, message: expect.stringContaining("jobs[1].priority") } },
      { job: { jobId: "c", created: true } },
    ]);
    expect(jobsOf(await call(address, "Reserve", { queues: [{ name: "batch" }], maxJobs: 10 }))).toMatchObject([
      { id: "a" },
      { id: "c" },
    ]);
  });

  it("extends a lease, and says which token is lost", async () => {
    await call(address, "Put", { queue: "extend", id: "1" });
    const { leaseToken, leaseExpiresAt } = await reserveOne("extend", { leaseDuration: "10s" });
    await call(address, "Put", { queue: "extend", id: "gone" });
    const lost = await reserveOne("extend");
    await call(address, "Delete", { queue: "extend", id: "gone" });
    const leaseTokens = [leaseToken, lost.leaseToken];
    const { results } = await call(address, "Extend", { leaseTokens, leaseDuration: "3600s" });
    expect(results).toMatchObject([
      { leaseExpiresAt: expect.any(String) },
      { error: { code: 9, details: [{ reason: "LEASE_LOST", metadata: { queue: "extend", id: "gone" } }] } },
    ]);
    const [extended] = results as [Json];
    const later = Date.parse(extended.leaseExpiresAt as string) - Date.parse(leaseExpiresAt as string);
    expect(later).toBeGreaterThan(3_000_000);
  });

  it("releases several reservations at once", async () => {
    await call(address, "PutMany", {
      jobs: [
        { queue: "many", id: "a" },
        { queue: "many", id: "b" },
      ],
    });
    const jobs = jobsOf(await call(address, "Reserve", { queues: [{ name: "many" }], maxJobs: 2 }));
    const releases = jobs.map(({ leaseToken }) => ({ leaseToken, completed: {} }));
    expect(await call(address, "ReleaseMany", { releases })).toEqual({
      results: [{ released: { state: "JOB_STATE_COMPLETED" } }, { released: { state: "JOB_STATE_COMPLETED" } }],
    });
  });

  it("subscribes, is handed a job that is put later, and hears that it was deleted", async () => {
    const stream = open(address, "Subscribe", { queues: [{ name: "live" }], maxOutstanding: 5, workerId: "hand" });
    try {
      await until(() => messages(stream).length === 1, { what: "the stream to start" });
      expect(messages(stream)[0]).toEqual({
        started: { workerId: "hand", leaseDuration: "30s", disconnectGrace: "2s" },
      });
      await call(address, "Put", { queue: "live", id: "1", payload: { text: "now" } });
      await until(() => messages(stream).length === 2, { what: "the job" });
      const [job] = jobsOf(messages(stream)[1]?.jobs as Json);
      expect(job).toMatchObject({ queue: "live", id: "1", payload: { text: "now" }, attempt: 1 });
      await call(address, "Delete", { queue: "live", id: "1" });
      await until(() => messages(stream).length === 3, { what: "the revocation" });
      expect(messages(stream)[2]).toEqual({
        revoked: { leaseTokens: [job?.leaseToken], reason: "REVOKED_REASON_DELETED" },
      });
    } finally {
      await stream.kill();
    }
  });

  it("works: starts, reports, releases and ends as lines of JSON are typed, and is told of each what became of it", async () => {
    const work = converse(address, "Work");
    const type = (line: string) => work.child.stdin?.write(`${line}\n`);
    const heard = (find: (message: Json) => unknown, what: string) =>
      until(() => messages(work).find((message) => find(message)), { what });
    try {
      type('{"start":{"queues":[{"name":"typed"}],"maxOutstanding":2,"workerId":"w9"}}');
      expect(await heard(({ started }) => started, "that it has started")).toEqual({
        started: { workerId: "w9", leaseDuration: "30s", disconnectGrace: "2s" },
      });
      await call(address, "PutMany", { jobs: ["1", "2", "3"].map((id) => ({ queue: "typed", id })) });
      const got = () => messages(work).flatMap(jobsOf);
      await until(() => got().length === 2, { what: "as many jobs as there is credit for" });
      const [first, second] = got();
      type(`{"progress":[{"leaseToken":"${first?.leaseToken}","percent":40,"note":"page 4"},{"leaseToken":"x"}]}`);
      await heard(({ refusedReports }) => refusedReports, "that a report was refused");
      const shown = async () => (await call(address, "Get", { queue: "typed", id: "1" })).job as Json;
      await until(async () => (await shown()).progress, { what: "the progress" });
      expect((await shown()).progress).toMatchObject({ percent: 40, note: "page 4" });
      type(`{"releases":[{"leaseToken":"${first?.leaseToken}","completed":{"result":{"text":"ok"}},"sequence":1},`);
      type(`{"leaseToken":"${second?.leaseToken}","failed":{"message":"no","permanent":true},"sequence":2}]}`);
      await until(() => got().length === 3, { what: "the third job" });
      const answers = () => messages(work).flatMap((message) => (message.released ?? []) as Json[]);
      await until(() => answers().length === 2, { what: "both answers" });
      expect(answers()).toEqual([
        { sequences: [1], result: { released: { state: "JOB_STATE_COMPLETED" } } },
        { sequences: [2], result: { released: { state: "JOB_STATE_FAILED" } } },
      ]);
      type('{"quiet":true,"extends":[{"leaseTokens":["x"],"sequence":3}]}');
      await heard(({ quiet }) => quiet === true, "that no jobs come any more");
      await heard(({ extended }) => extended, "that no such lease can be extended");
      type(`{"releases":[{"leaseToken":"${got()[2]?.leaseToken}","returned":{},"sequence":4}]}`);
      await until(() => answers().length === 3, { what: "the last answer" });
      work.child.stdin?.end();
      expect(await work.ended).toMatchObject({ code: 0, stderr: "" });
      expect(answers()[2]).toEqual({ sequences: [4], result: { released: { state: "JOB_STATE_READY" } } });
      expect((await call(address, "Get", { queue: "typed", id: "3" })).job).toMatchObject({ state: "JOB_STATE_READY" });
    } finally {
      await work.kill();
    }
  });

  it("works with all that it has to say in one pipe, also of a lease that it got by Reserve", async () => {
    await call(address, "Put", { queue: "piped", id: "1" });
    const { leaseToken } = await reserveOne("piped");
    expect(await call(address, "ReportProgress", { leaseToken, percent: 40, note: "page 4 of 10" })).toEqual({});
    const lines = [
      '{"start":{"queues":[{"name":"piped"}]},"quiet":true}',
      `{"releases":[{"leaseToken":"${leaseToken}","completed":{},"sequence":7}]}`,
    ];
    const pipe = `printf '%s\\n' "$1" "$2" | "$3" -plaintext -d @ "$4" baton.v1.JobService/Work`;
    const ended = await runProgram("sh", ["-c", pipe, "sh", ...lines, grpcurlPath ?? "", address]);
    const answers = messages({ stdout: () => ended.stdout }).flatMap(({ released }) => released ?? []);
    expect(answers).toEqual([{ sequences: [7], result: { released: { state: "JOB_STATE_COMPLETED" } } }]);
    expect(ended.code).toBe(0);
  });

  it("waits in Reserve for a job that is put later", async () => {
    const waiting = call(address, "Reserve", { queues: [{ name: "wait" }], wait: "10s" });
    await call(address, "Put", { queue: "wait", id: "1" });
    expect(jobsOf(await waiting)).toMatchObject([{ id: "1" }]);
  });

  it("is told which fields of a bad Put are wrong, and what is allowed", async () => {
    const { code, stderr } = await attempt(address, "Put", { queue: "m{ail", priority: 10, delay: "-1s" });
    expect(code).not.toBe(0);
    expect(stderr).toContain("Code: InvalidArgument");
    expect(stderr).toContain('"reason": "BAD_REQUEST"');
    for (const field of ["queue", "priority", "delay"]) expect(stderr).toContain(`"field": "${field}"`);
    expect(stderr).toContain("1 to 128 characters of A-Z a-z 0-9 . _ : -");
  });

  it("is told that a release needs an outcome, and that a token is none", async () => {
    const { stderr } = await attempt(address, "Release", { leaseToken: "nonsense" });
    expect(stderr).toContain('"field": "lease_token"');
    expect(stderr).toContain('"field": "outcome"');
  });

  it("asks for the health of the broker and of its service", async () => {
    const check = async (...words: string[]) => JSON.parse(await grpcurl(address, ...words)) as Json;
    expect(await check("grpc.health.v1.Health/Check")).toEqual({ status: "SERVING" });
    for (const [service, answer] of [
      ["baton.v1.JobService", '"SERVING"'],
      ["baton.v1.Nothing", "Code: NotFound"],
    ]) {
      const words = ["-plaintext", "-d", JSON.stringify({ service }), address, "grpc.health.v1.Health/Check"];
      const { stdout, stderr } = await runProgram(grpcurlPath ?? "", words);
      expect(stdout + stderr).toContain(answer);
    }
  });
});
