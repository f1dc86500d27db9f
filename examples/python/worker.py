"""A Baton worker in Python, from generated stubs alone. README says how to generate them.

    python examples/python/worker.py QUEUE... [--addr HOST:PORT[,HOST:PORT...]] [--concurrency N]

What `handle` returns becomes the job's result; an exception makes the job fail, to be tried again.

All goes over one Work call. A job is in hand from its arrival until the broker has answered its release; while the
stream lives, the broker keeps its lease. When the stream breaks, the worker opens another, to the next broker: it names
the leases of the jobs that still run, so that they stay its own, and repeats the releases that were not answered, which
is safe. A broker that shuts down says so (`draining`): the next stream is opened beside the old one, which then ends.
SIGTERM or SIGINT: no more jobs (`quiet`), finish those in hand, close; a second one ends the process at once.

Threads: the pool runs jobs; each stream is read by one of ours, and grpc runs its request iterator in one of its own,
which ends when `requests` does. Don't fork in a handler (multiprocessing: use "spawn"); subprocess is fine.
"""

import argparse
import itertools
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from baton.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc

MAX_JOB_BYTES = 32 * 1024 * 1024
CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),  # A lost connection shows within half a minute.
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),  # Else the pings of an idle stream stop after two.
    ("grpc.min_reconnect_backoff_ms", 5_000),  # So long an address may take to accept a connection.
    ("grpc.use_local_subchannel_pool", 1),  # A new stream has a new connection, maybe to another broker.
    ("grpc.max_receive_message_length", 2 * MAX_JOB_BYTES),
]
SILENCE_S = 50  # The broker says something every 20 s. A proxy may answer pings by itself, but cannot say that.
MAX_BATCH, MAX_BATCH_BYTES = 1_000, 4 * 1024 * 1024
# A stream that ends so will never do better: the mistake is this program's, or its caller's. All else may pass.
MISTAKES = {grpc.StatusCode[name] for name in
            ("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED")}
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]
# A release that is answered so is repeated: Redis is away, or full.
PASSING = {grpc.StatusCode[name].value[0] for name in ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")}


class Run:
    """A job in hand."""

    def __init__(self, worker: "Worker", number: int, job: job_pb2.ReservedJob) -> None:
        self.worker, self.number, self.job = worker, number, job
        self.revoked = threading.Event()  # The job is cancelled, deleted or another's: its outcome will not count.
        self.progress: job_service_pb2.ReportProgressRequest | None = None  # To be sent.
        self.release: job_service_pb2.ReleaseRequest | None = None  # The handler is done.
        self.sent_on: Stream | None = None  # Its release is on the way. The answer is found by `number`.

    def report(self, percent: int, note: str = "") -> None:
        """Says how far the job has come, for Get and Watch to show. Of what is not sent yet, the last one wins."""
        with self.worker.changed:
            self.progress = job_service_pb2.ReportProgressRequest(
                lease_token=self.job.lease_token, percent=percent, note=note)
            self.worker.changed.notify_all()


def handle(job: job_pb2.ReservedJob, run: Run) -> str:
    """Your work goes here. This one counts the words of a text; the header `seconds` makes it take its time."""
    words = job.payload.text.split()
    if not words:
        raise ValueError("there is no text to count")
    seconds = float(job.headers.get("seconds", "0"))
    for step in range(10 if seconds else 0):
        run.report(percent=step * 10, note=f"step {step + 1} of 10")
        if run.revoked.wait(seconds / 10):
            raise InterruptedError("nobody waits for this any more")
    return f"{len(words)} words"


class Stream:
    """One Work call."""

    def __init__(self, worker: "Worker", address: str) -> None:
        self.worker, self.address = worker, address
        self.call: grpc.Call | None = None
        self.started = self.draining = self.quiet_sent = self.quiet = self.ended = False
        self.heard_at = time.monotonic()

    def run(self) -> None:
        """Until it has ended; raises RpcError when it did not end well."""
        with grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS) as channel:
            try:
                self.call = job_service_pb2_grpc.JobServiceStub(channel).Work(self.requests())
                for message in self.call:
                    self.heard_at = float("inf")  # It is us who are busy.
                    self.worker.receive(self, message)
                    self.heard_at = time.monotonic()
            finally:
                self.worker.ended(self)

    def requests(self) -> Iterator[job_service_pb2.WorkRequest]:
        yield self.worker.first_request(self)
        while (request := self.worker.next_request(self)) is not None:
            yield request


class Worker:
    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        addresses = [address.strip() for addr in args.addr for address in addr.split(",")]
        random.shuffle(addresses)  # So that many workers spread over the brokers.
        self.addresses = itertools.cycle(addresses)
        self.pool = ThreadPoolExecutor(args.concurrency)
        self.fatal: str | None = None
        self.changed = threading.Condition()  # Guards all that follows, and all of Run and Stream.
        self.stopping = False
        self.connections = 0  # Threads in `stay_connected`.
        self.streams: list[Stream] = []  # Those that have started. The last one takes what there is to say.
        self.numbers = itertools.count(1)
        self.in_hand: dict[int, Run] = {}
        self.hold_until = 0.0  # No releases are sent before.

    def connect(self) -> None:
        self.connections += 1
        threading.Thread(target=self.stay_connected).start()

    def stop(self) -> None:
        """Returns when all is done."""
        with self.changed:
            say(f"takes no more jobs, and has {len(self.in_hand)} in hand")
            self.stopping = True
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.connections == 0)
        self.pool.shutdown()

    def is_done(self) -> bool:
        return self.stopping and not self.in_hand

    def stay_connected(self) -> None:
        """One stream after the other, until one drains: from then on another thread does this."""
        failures = 0
        try:
            while not self.is_done():
                stream = Stream(self, next(self.addresses))
                try:
                    stream.run()
                except grpc.RpcError as error:
                    if error.code() in MISTAKES:
                        raise ValueError(error.details()) from error
                    say(f"{stream.address}: {error.code().name}: {error.details()}")
                if stream.draining:
                    return
                failures = 1 if stream.started else min(failures + 1, 10)
                # Jittered, because many workers must not come back at the same moment.
                backoff = min(2, 0.1 * 2**failures) * random.uniform(0.5, 1)
                with self.changed:
                    self.changed.wait_for(self.is_done, backoff)
        except Exception as error:
            self.fatal = f"gave up: {error!r}"
        finally:
            with self.changed:
                self.connections -= 1
                self.changed.notify_all()

    def first_request(self, stream: Stream) -> job_service_pb2.WorkRequest:
        request = job_service_pb2.WorkRequest()
        start = request.start
        start.queues.extend(job_service_pb2.QueueSelector(name=name) for name in self.args.queues)
        start.max_outstanding, start.max_outstanding_bytes = self.args.concurrency, MAX_JOB_BYTES
        start.worker_id, start.host, start.language = self.args.worker_id, socket.gethostname(), "python"
        start.disconnect_grace.FromMilliseconds(int(self.args.grace * 1_000))
        with self.changed:
            running = [run.job for run in self.in_hand.values() if run.release is None]
            start.resume_lease_tokens.extend(job.lease_token for job in running if job.HasField("lease_expires_at"))
            if self.stopping:
                request.quiet = stream.quiet_sent = True
        return request

    def next_request(self, stream: Stream) -> job_service_pb2.WorkRequest | None:
        """What there is to say, in one message, as soon as there is something; None: no more."""
        with self.changed:
            while not stream.ended:
                request = self.gather(stream)
                if request.ListFields():
                    return request
                if self.is_done() and (stream.quiet or stream.draining):
                    return None
                now = time.monotonic()
                if stream.call and now - stream.heard_at > SILENCE_S:
                    say(f"{stream.address}: has said nothing for {SILENCE_S} s")
                    stream.call.cancel()
                self.changed.wait(self.hold_until - now if self.hold_until > now else 5)
        return None

    def gather(self, stream: Stream) -> job_service_pb2.WorkRequest:
        request = job_service_pb2.WorkRequest()
        if stream not in self.streams[-1:]:
            return request
        if self.stopping and not stream.quiet_sent and not stream.draining:
            request.quiet = stream.quiet_sent = True
        is_held, size = time.monotonic() < self.hold_until, 0
        for run in self.in_hand.values():
            if len(request.releases) + len(request.progress) >= MAX_BATCH or size > MAX_BATCH_BYTES:
                break
            if run.release and not run.sent_on and not is_held:
                request.releases.append(run.release)
                run.sent_on = stream
                size += run.release.ByteSize()
            elif run.progress and not run.release:
                request.progress.append(run.progress)
                run.progress = None
        return request

    def receive(self, stream: Stream, message: job_service_pb2.WorkResponse) -> None:
        with self.changed:
            if message.HasField("started"):
                stream.started = True
                self.streams.append(stream)
                say(f"connected to {stream.address} as {message.started.worker_id}")
            for group in message.released:
                for run in (self.in_hand.get(number) for number in group.sequences):
                    if run and run.sent_on:
                        self.answered(run, group.result)
            for revoked in message.revoked:
                self.revoke(set(revoked.lease_tokens), job_service_pb2.RevokedReason.Name(revoked.reason))
            for refused in message.refused_reports:
                say(f"a report of progress was refused: {refused.error.message}")
            for job in message.jobs:
                run = Run(self, next(self.numbers) % 2**32, job)
                self.in_hand[run.number] = run
                self.pool.submit(self.run_job, run)
            if message.HasField("draining") and not stream.draining:
                say(f"{stream.address} is draining")
                stream.draining = True
                self.connect()
            stream.quiet = stream.quiet or message.quiet
            self.changed.notify_all()
            # Jobs of a queue of mode SIMPLE have no lease, and so no credit bounds them: a full pool reads no further.
            if any(not job.HasField("lease_expires_at") for job in message.jobs):
                self.changed.wait_for(
                    lambda: sum(run.release is None for run in self.in_hand.values()) < self.args.concurrency)

    def ended(self, stream: Stream) -> None:
        with self.changed:
            stream.ended = True
            if stream in self.streams:
                self.streams.remove(stream)
            for run in self.in_hand.values():
                if run.sent_on is stream:
                    run.sent_on = None  # The next stream takes it.
            self.changed.notify_all()

    def revoke(self, tokens: set[str], reason: str) -> None:
        for run in list(self.in_hand.values()):
            # One that is released already gets its answer.
            if run.job.lease_token in tokens and not run.release:
                run.revoked.set()
                del self.in_hand[run.number]
                say(f"{run.job.queue} {run.job.id}: {reason}")

    def answered(self, run: Run, result: job_service_pb2.ReleaseResult) -> None:
        name, outcome, error = f"{run.job.queue} {run.job.id}", run.release.WhichOneof("outcome"), result.error
        run.sent_on = None
        if error.code in PASSING:
            say(f"{name}: not released yet: {error.message}")
            self.hold_until = time.monotonic() + random.uniform(0.1, 0.5)
        elif error.code == INVALID and outcome == "completed":
            fail(run.release, "ResultRefused", error.message)  # Too large, for instance.
        else:
            del self.in_hand[run.number]
            state = job_pb2.JobState.Name(result.released.state).removeprefix("JOB_STATE_")
            # Not released: the lease was lost, and the job is another worker's by now, or cancelled, or deleted.
            say(f"{name}: not released: {error.message}" if error.code else f"{name}: {outcome}, now {state}")

    def run_job(self, run: Run) -> None:
        """In a thread of the pool."""
        job = run.job
        if run.revoked.is_set():
            return
        say(f"{job.queue} {job.id}: attempt {job.attempt}")
        release = job_service_pb2.ReleaseRequest(lease_token=job.lease_token, sequence=run.number)
        try:
            release.completed.result.text = handle(job, run)
        except BaseException as error:  # Whatever it is, it is the job that failed, and not the worker.
            fail(release, type(error).__name__, str(error))
        with self.changed:
            run.release = release
            self.changed.notify_all()


def fail(release: job_service_pb2.ReleaseRequest, type_name: str, message: str) -> None:
    release.failed.type = type_name
    release.failed.message = message[:4_000].encode("utf-8", "replace").decode()


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")  # In one piece, unlike print's.
    sys.stderr.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts the words of each job's text.")
    parser.add_argument("queues", nargs="+", metavar="QUEUE")
    parser.add_argument("--addr", action="append", metavar="HOST:PORT", help="a broker; several: repeat it, or commas")
    parser.add_argument("--concurrency", type=int, default=4, metavar="N", help="how many jobs to run at once")
    parser.add_argument("--grace", type=float, default=10, metavar="SECONDS",
                        help="how long its jobs stay with this worker when its stream has ended")
    parser.add_argument("--worker-id", default=f"{socket.gethostname()}:{os.getpid()}", metavar="NAME")
    args = parser.parse_args()
    args.addr = args.addr or [os.environ.get("BATON_ADDR", "127.0.0.1:7711")]
    signals: list[int] = []  # Its handler must not wait for a lock: this thread may have it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: signals.append(number))
    worker = Worker(args)
    worker.connect()
    while not signals and worker.fatal is None:
        time.sleep(0.2)  # A signal mostly ends it, but one that comes just before would not: so no longer.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    worker.stop()
    sys.exit(worker.fatal)


if __name__ == "__main__":
    main()
