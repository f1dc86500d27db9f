#!lua flags=allow-oom
-- @include due
-- Ends one job that has not finished, and keeps it as FAILED. Allowed when memory is full: it ends work.
--
-- KEYS     all parts of the queue
-- ARGV     5 id, 6 bytes of the error to be kept, 7 JSON members for the completion event
-- Returns  1 the state the job was in, 0 when there was none, 2 whether it was cancelled (1) or had finished (0)
-- Publishes  the completion event, the end of the lease, and what move_due publishes; rings when a job became READY
-- Twice    the second time the job has finished
local id = ARGV[FIRST]
local woken = move_due()
load({ id })
local job = jobs[id]
local state, cancelled = 0, 0
if job and not is_over(job) then
  state = job[F_STATE]
  if state < COMPLETED then
    cancelled = 1
    announce_end(id, job, 'CANCELLED')
    keep_result(id, ARGV[FIRST + 1])
    bury(id, job, REASON_CANCELLED, 'cancel', ARGV[FIRST + 2])
    woken = commit() or woken
  end
end
if woken then
  ring()
end
return { state, cancelled }
