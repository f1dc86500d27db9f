-- @include finish
-- What time alone does to jobs: scheduled and retrying ones become READY, leases run out. reserve does it before it
-- takes jobs, so that a delay is exact without polling; sweep does it for queues that nobody waits at.

local promote, move_due
do
  -- So many of each kind in one call, to keep a script short.
  local DUE_BATCH = 100

  -- The members of `set` that are due, at most DUE_BATCH.
  local function due_in(set)
    local head = tonumber(call('ZRANGE', set, 0, 0, 'WITHSCORES')[2])
    heads[set] = head or false
    if not head or head > NOW then
      return {}
    end
    return call('ZRANGE', set, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, DUE_BATCH)
  end

  -- A job that was put for later, or that was returned with a delay, can run.
  function promote(id, job, order)
    remember_place(id, job)
    if job[F_ATTEMPT] == 0 and job[F_STATE] == SCHEDULED then
      job[F_ORDER] = order
    end
    move(id, READY, job[F_AT], 'due')
  end

  -- Moves what is due, and commits. Returns whether a job became READY, and whether there may be more that is due.
  function move_due()
    local scheduled, retrying = due_in(SCHEDULED_SET), due_in(RETRYING_SET)
    -- Of a recoverable queue only Requeue ends leases.
    local expired = due_in(RESERVED_SET)
    if #expired > 0 and settings.mode == 'recoverable' then
      expired = {}
    end
    if #scheduled == 0 and #retrying == 0 and #expired == 0 then
      return false, false
    end
    for _, id in ipairs(load_members(SCHEDULED_SET, SCHEDULED, scheduled)) do
      local job = jobs[id]
      promote(id, job, job[F_ATTEMPT] == 0 and tick('due_order', job[F_AT]))
    end
    for _, id in ipairs(load_members(RETRYING_SET, RETRYING, retrying)) do
      promote(id, jobs[id])
    end
    for _, id in ipairs(load_members(RESERVED_SET, RESERVED, expired)) do
      expire(id, jobs[id])
    end
    local more = #scheduled == DUE_BATCH or #retrying == DUE_BATCH or #expired == DUE_BATCH
    return commit(), more
  end
end

-- How long until the next job or schedule is due or the next lease ends, in ms; -1 when nothing waits for a time. Not a
-- time of day: the caller's clock may differ from Redis's.
local function next_due()
  local soonest = -1
  for _, set in ipairs({ SCHEDULED_SET, RETRYING_SET, RESERVED_SET }) do
    local head = heads[set]
    if head == nil then
      head = tonumber(call('ZRANGE', set, 0, 0, 'WITHSCORES')[2])
    end
    local ends_by_itself = set ~= RESERVED_SET or settings.mode ~= 'recoverable'
    if head and ends_by_itself and (soonest < 0 or head < soonest) then
      soonest = head
    end
  end
  local next_tick = meta[META_NEXT_TICK] and tonumber(meta[META_NEXT_TICK])
  if next_tick and (soonest < 0 or next_tick < soonest) then
    soonest = next_tick
  end
  return soonest < 0 and -1 or math.max(0, soonest - NOW)
end
