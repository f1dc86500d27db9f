-- @include finish
-- What time alone does to jobs: scheduled and retrying ones become READY, leases run out. reserve does it before it
-- takes jobs, so that a delay is exact without polling; sweep does it for queues that nobody waits at.

-- So many of each kind in one call, to keep a script short.
local DUE_BATCH = 100

-- The ids in `set` that are due, at most DUE_BATCH.
local function due_in(set)
  local head = call('ZRANGE', set, 0, 0, 'WITHSCORES')
  if not head[1] or tonumber(head[2]) > NOW then
    return {}
  end
  return call('ZRANGE', set, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, DUE_BATCH)
end

-- Moves what is due, and commits. Returns whether a job became READY, and whether there may be more that is due.
local function move_due()
  local scheduled, retrying, expired = due_in(SCHEDULED_SET), due_in(RETRYING_SET), due_in(RESERVED_SET)
  if #scheduled == 0 and #retrying == 0 and #expired == 0 then
    return false, false
  end
  for i, member in ipairs(scheduled) do
    scheduled[i] = id_of_scheduled(member)
  end
  load(scheduled)
  load(retrying)
  load(expired)
  for _, id in ipairs(scheduled) do
    local job = jobs[id]
    remember_place(id, job)
    if job[F_ATTEMPT] == 0 then
      job[F_ORDER] = tick('due_order', job[F_AT])
    end
    move(id, READY, job[F_AT], 'due')
  end
  for _, id in ipairs(retrying) do
    move(id, READY, jobs[id][F_AT], 'due')
  end
  for _, id in ipairs(expired) do
    expire(id, jobs[id])
  end
  local more = #scheduled == DUE_BATCH or #retrying == DUE_BATCH or #expired == DUE_BATCH
  return commit(), more
end

-- How long until the next job is due or the next lease ends, in ms; -1 when nothing waits for a time. Not a time of
-- day: the caller's clock may differ from Redis's.
local function next_due()
  local soonest = -1
  for _, set in ipairs({ SCHEDULED_SET, RETRYING_SET, RESERVED_SET }) do
    local head = call('ZRANGE', set, 0, 0, 'WITHSCORES')
    if head[1] and (soonest < 0 or tonumber(head[2]) < soonest) then
      soonest = tonumber(head[2])
    end
  end
  return soonest < 0 and -1 or math.max(0, soonest - NOW)
end
