#!lua flags=allow-oom
-- @include due
-- Shows one job as it stands at this moment: what is due has moved.
--
-- KEYS     all parts of the queue
-- ARGV     5 id
-- Returns  nil when there is no such job, else: spec, result or error (nil: none), state, attempt, failures, at, put at,
--          worker ('': none), reserved at, finished at, why it failed (REASON_…); times in ms, 0 for none
-- Publishes  what move_due publishes; rings as move_due makes jobs READY
-- Twice    yes
local id = ARGV[FIRST]
if move_due() then
  ring()
end
load({ id })
local job = jobs[id]
if not job or is_over(job) then
  return false
end
return {
  call('HGET', SPEC, id),
  call('HGET', RESULT, id),
  job[F_STATE],
  job[F_ATTEMPT],
  job[F_FAILURES],
  job[F_AT],
  job[F_PUT_AT],
  job[F_WORKER],
  job[F_RESERVED_AT],
  job[F_FINISHED_AT],
  job[F_REASON],
}
