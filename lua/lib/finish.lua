-- @include commit
-- The ends of a reservation, and of a job.

local completion_event, complete, bury
do
  -- The completion event, as documented in README: one JSON object for each job that becomes COMPLETED or FAILED.
  -- `detail` is '' or JSON members that start with a comma: the result or the error.
  function completion_event(id, job, state, detail)
    local reserved_at = job[F_RESERVED_AT]
    return string.format(
      '{"queue":"%s","id":%s,"state":"%s","attempt":%d,"failures":%d,"workerId":%s,'
        .. '"putAtMs":%d,"reservedAtMs":%s,"finishedAtMs":%d%s}',
      QUEUE,
      cjson.encode(id),
      state,
      job[F_ATTEMPT],
      job[F_FAILURES],
      cjson.encode(job[F_WORKER]),
      job[F_PUT_AT],
      reserved_at > 0 and string.format('%d', reserved_at) or 'null',
      NOW,
      detail
    )
  end

  function complete(id, job, result, detail)
    job[F_FINISHED_AT] = NOW
    job[F_REASON] = 0
    publish(EVENTS, completion_event(id, job, 'COMPLETED', detail))
    counts.completed = counts.completed + 1
    local retention = policy_of(job, P_RETENTION) or setting('retention')
    if retention == 0 then
      remove(id, 'complete')
      return
    end
    move(id, COMPLETED, NOW + retention, 'complete')
    -- An error of an earlier attempt gives way to the result.
    if result ~= '' or job[F_FAILURES] > 0 then
      keep_result(id, result)
    end
  end

  function bury(id, job, reason, cause, detail)
    job[F_REASON] = reason
    job[F_FINISHED_AT] = NOW
    counts.failed = counts.failed + 1
    publish(EVENTS, completion_event(id, job, 'FAILED', detail))
    move(id, FAILED, NOW, cause)
  end
end

local ERROR_DETAIL = ',"error":{"type":"%s","message":"%s","permanent":false}'

-- A field of the retry policy, as the job says, else its queue; nil when neither does.
local function retry_said(job, field)
  local own, queues = policy_of(job, P_RETRY), settings.retry
  return own and own[field] or queues and queues[field] or nil
end

local function retry_of(job, field)
  return retry_said(job, field) or defaults().retry[field]
end

-- A job may not run longer than this, however often its lease is extended; nil: no limit.
local function run_ends_at(job)
  local run_timeout = policy_of(job, P_RUN_TIMEOUT)
  return run_timeout and job[F_RESERVED_AT] + run_timeout
end

-- A lease that ran out counts as a failed attempt, so that a job which kills its workers ends somewhere.
local function expire(id, job)
  local run_ends = run_ends_at(job)
  announce_end(id, job, run_ends and NOW >= run_ends and 'RUN_TIMEOUT' or 'EXPIRED')
  job[F_FAILURES] = job[F_FAILURES] + 1
  job[F_REASON] = REASON_LEASE_EXPIRED
  job[F_FINISHED_AT] = 0
  -- The error of an earlier attempt is no longer the last one.
  keep_result(id, '')
  if job[F_FAILURES] >= retry_of(job, R_MAX_ATTEMPTS) then
    bury(id, job, REASON_LEASE_EXPIRED, 'expire', string.format(ERROR_DETAIL, 'LEASE_EXPIRED', 'the lease ran out'))
  else
    move(id, READY, 0, 'expire')
  end
end

-- The wait after the last failure; `chance` is uniform in [0, 1) and comes from the caller, because Redis seeds
-- math.random alike for every script. The formulas stand in the proto, at RetryPolicy.
local CURVE_EXQ = 2
-- By the curve exq the wait after 1,000 failures would be 30,000 years, for which a record has no room: 100 will do.
local LONGEST_WAIT = 36525 * 86400000
local function backoff(job, chance)
  local n = job[F_FAILURES]
  if retry_of(job, R_CURVE) == CURVE_EXQ then
    local wait = (n ^ 4 + 15 + chance * 30 * (n + 1)) * 1000
    return math.ceil(math.min(wait, retry_said(job, R_MAX) or LONGEST_WAIT))
  end
  local initial = retry_of(job, R_INITIAL)
  if initial == 0 then
    return 0
  end
  local most = math.max(retry_of(job, R_MAX), initial)
  local wait = math.min(most, initial * retry_of(job, R_MULTIPLIER) ^ (n - 1))
  return math.ceil(wait * (1 - retry_of(job, R_JITTER) * chance))
end
