-- @include due
-- A job as Get and List show it: spec, result or error (nil: none), state, attempt, failures, at, put at, worker ('':
-- none), reserved at, finished at, why it failed (REASON_…), concurrency key ('': none), its limit, unique key ('':
-- none), until (1 start, 2 success, 3 expiry), its expiry (ms from the put, 0: none), percent of the progress (-1: none),
-- when it was reported, its note, its id; times in ms, 0 for none.
local function view_of(id, job, spec, result)
  local slot, key = policy_of(job, P_CONCURRENCY) or { '', 0 }, policy_of(job, P_UNIQUE) or { '', 0, false }
  local percent, reported_at, text = progress_of(job)
  return {
    spec,
    result,
    job[F_STATE],
    job[F_ATTEMPT],
    job[F_FAILURES],
    job[F_AT],
    job[F_PUT_AT],
    job[F_WORKER],
    job[F_RESERVED_AT],
    job[F_STATE] == RESERVED and 0 or job[F_FINISHED_AT],
    job[F_REASON],
    slot[1],
    slot[2],
    key[1],
    key[2],
    key[3] or 0,
    percent,
    reported_at,
    text,
    id,
  }
end
