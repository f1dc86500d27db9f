#!lua flags=allow-oom
-- @include due
-- Ends reservations, each with its outcome. Allowed when memory is full: it is how jobs get finished.
--
-- KEYS     all parts of the queue
-- ARGV     5 a number in [0, 1) for the jitter of retries, 6 '1' when another broker may keep one of these leases for a
--          stream, which must hear of it; else ''
--          then for each release: id, fence (0: the job was pulled, so only its event is published), outcome: completed |
--          failed | buried (failed for good) | returned | undelivered (the worker never got it: as if it had not been
--          reserved) | pulled (to be forgotten: the worker gets it now), wait in ms ('': by the retry policy;
--          for returned: 0), bytes of the result or error to be kept, JSON members for the completion event
-- Returns  7 bytes for each release: the state it led to (1), 0 when the lease is lost, 255 when the job is gone by
--          `pulled`; when the job is due (6, ms, 0: not)
-- Publishes  completion events, and the ends of the leases when asked to; rings when a job is READY again, or due before all others
-- Twice    a release with the fence that won gets the same answer again, until the job is reserved anew or removed; a
--          `pulled` gets a 0, and the jobs are lost, as those are that were on their way
local chance, announce = tonumber(ARGV[FIRST]), ARGV[FIRST + 1] == '1'
local STRIDE = 6
local ids = {}
for i = FIRST + 2, #ARGV, STRIDE do
  ids[#ids + 1] = ARGV[i]
end
load(ids)

-- Jobs that fail together must not return together: the golden ratio spreads one chance over all of them.
local GOLDEN_RATIO = 0.6180339887498949
local function chance_of(n)
  return (chance + n * GOLDEN_RATIO) % 1
end

local PULLED = 255

-- A unique key that was let go by the start of a job that nobody got is its own again, unless another has taken it.
local function take_back_key(id, job)
  local wish = policy_of(job, P_UNIQUE)
  if wish and wish[2] == UNTIL_START and job[F_ATTEMPT] == 0 then
    with_keys()
    if not unique.keeper(job) then
      unique.take(id, job)
    end
  end
end

local function end_reservation(n, id, job, outcome, wait, bytes, detail)
  if outcome == 'pulled' then
    counts.pulled = counts.pulled + 1
    remove(id, 'pull')
    return PULLED, 0
  end
  local ahead_of = job[F_FINISHED_AT]
  job[F_FINISHED_AT] = 0
  if outcome == 'completed' then
    job[F_RELEASED] = COMPLETED
    complete(id, job, bytes, detail)
    return COMPLETED, 0
  end
  if outcome == 'failed' or outcome == 'buried' then
    job[F_FAILURES] = job[F_FAILURES] + 1
    job[F_REASON] = REASON_RELEASED
    keep_result(id, bytes)
    if outcome == 'buried' or job[F_FAILURES] >= retry_of(job, R_MAX_ATTEMPTS) then
      job[F_RELEASED] = FAILED
      bury(id, job, REASON_RELEASED, 'fail', detail)
      return FAILED, 0
    end
    local due = NOW + (wait ~= '' and tonumber(wait) or backoff(job, chance_of(n)))
    job[F_RELEASED] = RETRYING
    move(id, RETRYING, due, 'fail')
    return RETRYING, due
  end
  local due = NOW + tonumber(wait)
  if outcome == 'undelivered' then
    job[F_ATTEMPT] = job[F_ATTEMPT] - 1
    due = ahead_of
    take_back_key(id, job)
  end
  if due > NOW then
    job[F_RELEASED] = SCHEDULED
    move(id, SCHEDULED, due, 'return')
    return SCHEDULED, due
  end
  job[F_RELEASED] = READY
  move(id, READY, 0, 'return')
  return READY, 0
end

-- Nothing is known of a pulled job any more. A job that has its id now is another one.
local function release_pulled(id, job, outcome, detail)
  local state = outcome == 'completed' and COMPLETED or (outcome == 'failed' or outcome == 'buried') and FAILED or 0
  if job or state == 0 then
    return 0
  end
  local unknown = { [F_ATTEMPT] = 1, [F_FAILURES] = 0, [F_WORKER] = '', [F_PUT_AT] = 0, [F_RESERVED_AT] = 0 }
  publish(EVENTS, completion_event(id, unknown, state == COMPLETED and 'COMPLETED' or 'FAILED', detail))
  return state
end

local answer = {}
for n, id in ipairs(ids) do
  local at = FIRST + 2 + (n - 1) * STRIDE
  local job, fence = jobs[id], tonumber(ARGV[at + 1])
  local state, due = 0, 0
  if fence == 0 then
    state = release_pulled(id, job, ARGV[at + 2], ARGV[at + 5])
  elseif job and job[F_FENCE] == fence and not is_over(job) then
    if job[F_STATE] == RESERVED and lease_runs(job) then
      if announce then
        announce_end(id, job, 'RELEASED')
      end
      state, due = end_reservation(n - 1, id, job, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
    elseif job[F_RELEASED] ~= 0 then
      state = job[F_RELEASED]
      due = (state == RETRYING or state == SCHEDULED) and job[F_STATE] < COMPLETED and job[F_AT] or 0
    end
  end
  answer[n] = struct.pack('>BI6', state, due)
end

if commit() then
  ring()
end
return table.concat(answer)
