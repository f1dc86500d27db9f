-- @include job
-- The ends of a reservation, and of a job.

-- The completion event, as documented in README: one JSON object for each job that becomes COMPLETED or FAILED.
-- `detail` is '' or JSON members that start with a comma: the result or the error.
local function completion_event(id, job, state, detail)
  return string.format(
    '{"queue":"%s","id":%s,"state":"%s","attempt":%d,"failures":%d,"workerId":%s,'
      .. '"putAtMs":%.0f,"reservedAtMs":%s,"finishedAtMs":%.0f%s}',
    QUEUE,
    cjson.encode(id),
    state,
    job[F_ATTEMPT],
    job[F_FAILURES],
    cjson.encode(job[F_WORKER] or ''),
    job[F_PUT_AT],
    job[F_RESERVED_AT] and string.format('%.0f', job[F_RESERVED_AT]) or 'null',
    NOW,
    detail
  )
end

local function complete(id, job, result, detail)
  job[F_FINISHED_AT] = NOW
  publish('events', completion_event(id, job, 'COMPLETED', detail))
  local retention = policy_of(job, P_RETENTION) or defaults().retention
  if retention == 0 then
    remove(id, 'complete')
    return
  end
  move(id, COMPLETED, NOW + retention, 'complete')
  -- An error of an earlier attempt gives way to the result.
  results[id] = result ~= '' and result
end

local function bury(id, job, reason, cause, detail)
  job[F_WORKER] = job[F_WORKER] or false
  job[F_RESERVED_AT] = job[F_RESERVED_AT] or false
  job[F_RELEASED] = job[F_RELEASED] or 0
  job[F_REASON] = reason
  job[F_FINISHED_AT] = NOW
  publish('events', completion_event(id, job, 'FAILED', detail))
  move(id, FAILED, NOW, cause)
end

local ERROR_DETAIL = ',"error":{"type":"%s","message":"%s","permanent":false}'

-- A lease that ran out counts as a failed attempt, so that a job which kills its workers ends somewhere.
local function expire(id, job)
  local run_timeout = policy_of(job, P_RUN_TIMEOUT)
  local hung = run_timeout and NOW >= job[F_RESERVED_AT] + run_timeout
  announce_end(id, job, hung and 'RUN_TIMEOUT' or 'EXPIRED')
  job[F_FAILURES] = job[F_FAILURES] + 1
  if job[F_FAILURES] >= retry_of(job)[R_MAX_ATTEMPTS] then
    results[id] = false
    bury(id, job, REASON_LEASE_EXPIRED, 'expire', string.format(ERROR_DETAIL, 'LEASE_EXPIRED', 'the lease ran out'))
  else
    move(id, READY, 0, 'expire')
  end
end

-- The wait after the last failure; `chance` is uniform in [0, 1) and comes from the caller, because Redis seeds
-- math.random alike for every script. The formula stands in the proto, at RetryPolicy.
local function backoff(job, chance)
  local retry = retry_of(job)
  local wait = math.min(retry[R_MAX], retry[R_INITIAL] * retry[R_MULTIPLIER] ^ (job[F_FAILURES] - 1))
  return math.ceil(wait * (1 - retry[R_JITTER] * chance))
end
