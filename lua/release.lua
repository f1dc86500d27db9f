#!lua flags=allow-oom
-- @include due
-- Ends reservations, each with its outcome. Allowed when memory is full: it is how jobs get finished.
--
-- KEYS     all parts of the queue
-- ARGV     5 a number in [0, 1) for the jitter of retries, 6 '1' when another broker may keep one of these leases for a
--          stream, which must hear of it; else ''
--          7 the releases, packed as RELEASE says: id, fence (0: the job was pulled, so only its event is published),
--          outcome: 1 completed, 2 failed, 3 failed for good, 4 returned, 5 undelivered (the worker never got it: as if it
--          had not been reserved), 6 pulled (to be forgotten: the worker gets it now), wait in ms plus 1 (0: by the retry
--          policy), bytes of the result or error to be kept, JSON members for the completion event
-- Returns  7 bytes for each release: the state it led to (1), 0 when the lease is lost, 255 when the job is gone by
--          `pulled`; when the job is due (6, ms, 0: not)
-- Publishes  completion events, and the ends of the leases when asked to; rings when a job is READY again, or due before all others
-- Twice    a release with the fence that won gets the same answer again, until the job is reserved anew or removed; a
--          `pulled` gets a 0, and the jobs are lost, as those are that were on their way
local chance, announce = tonumber(ARGV[FIRST]), ARGV[FIRST + 1] == '1'
local COMPLETED_NOW, FAILED_NOW, BURIED, RETURNED, UNDELIVERED, PULLED = 1, 2, 3, 4, 5, 6
local RELEASE = '>Bc0I7BI7I4c0I4c0'
local ids, fences, outcomes, waits, outcome_bytes, details = {}, {}, {}, {}, {}, {}
local packed_releases, at = ARGV[FIRST + 2], 1
for n = 1, #packed_releases do
  if at > #packed_releases then
    break
  end
  ids[n], fences[n], outcomes[n], waits[n], outcome_bytes[n], details[n], at = struct.unpack(RELEASE, packed_releases, at)
end

-- Jobs that fail together must not return together: the golden ratio spreads one chance over all of them.
local GOLDEN_RATIO = 0.6180339887498949
local function chance_of(n)
  return (chance + n * GOLDEN_RATIO) % 1
end

local GONE = 255

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
  if outcome == PULLED then
    counts.pulled = counts.pulled + 1
    remove(id, 'pull')
    return GONE, 0
  end
  local ahead_of = job[F_FINISHED_AT]
  job[F_FINISHED_AT] = 0
  if outcome == COMPLETED_NOW then
    job[F_RELEASED] = COMPLETED
    complete(id, job, bytes, detail)
    return COMPLETED, 0
  end
  if outcome == FAILED_NOW or outcome == BURIED then
    job[F_FAILURES] = job[F_FAILURES] + 1
    job[F_REASON] = REASON_RELEASED
    keep_result(id, bytes)
    if outcome == BURIED or job[F_FAILURES] >= retry_of(job, R_MAX_ATTEMPTS) then
      job[F_RELEASED] = FAILED
      bury(id, job, REASON_RELEASED, 'fail', detail)
      return FAILED, 0
    end
    local due = NOW + (wait > 0 and wait - 1 or backoff(job, chance_of(n)))
    job[F_RELEASED] = RETRYING
    move(id, RETRYING, due, 'fail')
    return RETRYING, due
  end
  local due = NOW + math.max(0, wait - 1)
  if outcome == UNDELIVERED then
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
  local state = outcome == COMPLETED_NOW and COMPLETED or (outcome == FAILED_NOW or outcome == BURIED) and FAILED or 0
  if job or state == 0 then
    return 0
  end
  local unknown = { [F_ATTEMPT] = 1, [F_FAILURES] = 0, [F_WORKER] = '', [F_PUT_AT] = 0, [F_RESERVED_AT] = 0 }
  publish(EVENTS, completion_event(id, unknown, state == COMPLETED and 'COMPLETED' or 'FAILED', detail))
  return state
end

-- A completion of which nobody will hear is not published: that takes a third of the time. Where there are replicas,
-- somebody may listen there. To ask costs as much as to publish three events. A Redis user who may not ask is heard.
local function is_heard()
  local at_channel, at_patterns = redis.pcall('PUBSUB', 'NUMSUB', EVENTS)[2], redis.pcall('PUBSUB', 'NUMPAT')
  if at_channel ~= 0 or at_patterns ~= 0 then
    return true
  end
  local replication = redis.pcall('INFO', 'replication')
  return type(replication) ~= 'string' or not string.find(replication, 'connected_slaves:0\r', 1, true)
end

local records = read(ids)
local are_plain = records and #ids >= PLAIN_WORTH and not announce and not is_watched and not is_heard()
local retention = are_plain and setting('retention')
local FIRST_BYTE = string.char(COMPLETED_BYTE)
local completed, completed_score, completed_at, finished
local answer = {}
for n, id in ipairs(ids) do
  local packed, fence, outcome = records and records[n], fences[n], outcomes[n]
  local state, due = 0, 0
  local is_plain = are_plain
    and packed
    and outcome == COMPLETED_NOW
    and outcome_bytes[n] == ''
    and string.byte(packed) == RESERVED_BYTE
    and #packed == USED_BYTES + string.byte(packed, AT_WORKER)
  if is_plain then
    local failures, _, ends, its_fence = struct.unpack('>I2I7I6I7', packed, AT_ORDER - 2)
    is_plain = failures == 0 and ends > NOW and its_fence == fence
  end
  if is_plain then
    state = COMPLETED
    counts.completed = counts.completed + 1
    leave(RESERVED_SET, id)
    if retention == 0 then
      append(gone, id)
    else
      if not completed then
        completed, completed_score = {}, string.format('%d', NOW + retention)
        completed_at = struct.pack('>I6', NOW + retention)
        finished = struct.pack('>BBI6', COMPLETED, 0, NOW)
      end
      append(completed, completed_score)
      append(completed, id)
      append(states, id)
      append(
        states,
        FIRST_BYTE
          .. string.sub(packed, AT_PRIORITY, AT_AT - 1)
          .. completed_at
          .. string.sub(packed, AT_FENCE, AT_RELEASED - 1)
          .. finished
          .. string.sub(packed, AT_WORKER)
      )
    end
  else
    if records then
      take_all({ id }, { packed })
    end
    local job = jobs[id]
    if fence == 0 then
      state = release_pulled(id, job, outcome, details[n])
    elseif job and job[F_FENCE] == fence and not is_over(job) then
      if job[F_STATE] == RESERVED and lease_runs(job) then
        if announce then
          announce_end(id, job, 'RELEASED')
        end
        state, due = end_reservation(n - 1, id, job, outcome, waits[n], outcome_bytes[n], details[n])
      elseif job[F_RELEASED] ~= 0 then
        state = job[F_RELEASED]
        due = (state == RETRYING or state == SCHEDULED) and job[F_STATE] < COMPLETED and job[F_AT] or 0
      end
    end
  end
  answer[n] = struct.pack('>BI6', state, due)
end

into[COMPLETED_SET] = completed
if commit() then
  ring()
end
return table.concat(answer)
