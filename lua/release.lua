#!lua flags=allow-oom
-- @include due
-- Ends reservations, each with its outcome. Allowed when memory is full: it is how jobs get finished.
--
-- KEYS     all parts of the queue
-- ARGV     5 a number in [0, 1) for the jitter of retries, 6 '1' when another broker may keep one of these leases for a
--          stream, which must hear of it; else ''
--          then for each release: id, fence, outcome: completed | failed | buried (failed for good) | returned |
--          undelivered (the worker never got it: as if it had not been reserved), wait in ms ('': by the retry policy;
--          for returned: 0), bytes of the result or error to be kept, JSON members for the completion event
-- Returns  7 bytes for each release: the state it led to (1), 0 when the lease is lost; when the job is due (6, ms, 0: not)
-- Publishes  completion events, and the ends of the leases when asked to; rings when a job is READY again, or due before all others
-- Twice    a release with the fence that won gets the same answer again, until the job is reserved anew or removed
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

local function end_reservation(n, id, job, outcome, wait, bytes, detail)
  if outcome == 'completed' then
    job[F_RELEASED] = COMPLETED
    complete(id, job, bytes, detail)
    return COMPLETED, 0
  end
  if outcome == 'failed' or outcome == 'buried' then
    job[F_FAILURES] = job[F_FAILURES] + 1
    job[F_REASON] = REASON_RELEASED
    keep_result(id, bytes)
    if outcome == 'buried' or job[F_FAILURES] >= retry_of(job)[R_MAX_ATTEMPTS] then
      job[F_RELEASED] = FAILED
      bury(id, job, REASON_RELEASED, 'fail', detail)
      return FAILED, 0
    end
    local due = NOW + (wait ~= '' and tonumber(wait) or backoff(job, chance_of(n)))
    job[F_RELEASED] = RETRYING
    move(id, RETRYING, due, 'fail')
    return RETRYING, due
  end
  if outcome == 'undelivered' then
    job[F_ATTEMPT] = job[F_ATTEMPT] - 1
  elseif tonumber(wait) > 0 then
    local due = NOW + tonumber(wait)
    job[F_RELEASED] = SCHEDULED
    move(id, SCHEDULED, due, 'return')
    return SCHEDULED, due
  end
  job[F_RELEASED] = READY
  move(id, READY, 0, 'return')
  return READY, 0
end

local answer = {}
for n, id in ipairs(ids) do
  local at = FIRST + 2 + (n - 1) * STRIDE
  local job, fence = jobs[id], tonumber(ARGV[at + 1])
  local state, due = 0, 0
  if job and job[F_FENCE] == fence and not is_over(job) then
    if job[F_STATE] == RESERVED and job[F_AT] > NOW then
      if announce then
        announce_end(id, job, 'RELEASED')
      end
      state, due = end_reservation(n - 1, id, job, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
    elseif job[F_RELEASED] ~= 0 then
      state = job[F_RELEASED]
      due = (state == RETRYING or state == SCHEDULED) and job[F_AT] or 0
    end
  end
  answer[n] = struct.pack('>BI6', state, due)
end

if commit() then
  ring()
end
return table.concat(answer)
