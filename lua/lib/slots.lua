-- @include record
-- Concurrency keys: never more than `limit` jobs of one key hold a slot.
--
-- A job has a slot while it is RESERVED, and already when a freed slot brings it back from HELD to READY: the slot is
-- kept for it. So nothing overtakes it, and however it leaves READY its slot is freed as any other. While jobs of a key
-- are HELD, all its slots are taken: whenever one is given up, or the limit rises, the next ones of the key come back
-- (fill_slots, in lib/commit.lua). Until then none goes to a job that is not HELD: those were there first.
--
-- SLOTS has for each key, while jobs of it are unfinished: slots taken, limit, unfinished jobs, HELD ones.
local slots = { entries = {} } -- key → {taken, limit, unfinished, held; dirty, touched: flags}
local function with_slots()
  local ENTRY = '>I4I4I4I4'

  local function entry_of(key)
    local entry = slots.entries[key]
    if not entry then
      local packed = call('HGET', SLOTS, key)
      local taken, limit, unfinished, held = 0, 0, 0, 0
      if packed then
        taken, limit, unfinished, held = struct.unpack(ENTRY, packed)
      end
      entry = { taken = taken, limit = limit, unfinished = unfinished, held = held }
      slots.entries[key] = entry
    end
    return entry
  end

  -- Whether the job may be reserved, as far as its concurrency key goes.
  function slots.finds(job)
    local concurrency = policy_of(job, P_CONCURRENCY)
    if not concurrency or job[F_SLOT] then
      return true
    end
    local entry = entry_of(concurrency[1])
    return entry.taken < entry.limit and entry.held == 0
  end

  -- A job with a concurrency key passes from one state to another; nil: it is not there.
  function slots.pass(job, from, to, keeps_slot)
    local concurrency = policy_of(job, P_CONCURRENCY)
    if not concurrency then
      return
    end
    local entry = entry_of(concurrency[1])
    entry.dirty, entry.touched = true, true
    local was, is = from and from < COMPLETED, to and to < COMPLETED
    -- The first of its key, such as a job that is retried, brings the limit.
    if entry.unfinished == 0 then
      entry.limit = concurrency[2]
    end
    entry.unfinished = entry.unfinished + (is and 1 or 0) - (was and 1 or 0)
    entry.held = entry.held + (to == HELD and 1 or 0) - (from == HELD and 1 or 0)
    if keeps_slot and not job[F_SLOT] then
      job[F_SLOT] = true
      entry.taken = entry.taken + 1
    elseif job[F_SLOT] and not keeps_slot then
      job[F_SLOT] = nil
      entry.taken = entry.taken - 1
    end
  end

  -- The job put last says how many slots its key has.
  function slots.set_limit(job)
    local concurrency = policy_of(job, P_CONCURRENCY)
    if concurrency then
      local entry = entry_of(concurrency[1])
      entry.dirty, entry.touched = true, true
      entry.limit = concurrency[2]
    end
  end

  function slots.write()
    for key, entry in pairs(slots.entries) do
      if entry.dirty then
        entry.dirty = nil
        if entry.unfinished > 0 then
          call('HSET', SLOTS, key, struct.pack(ENTRY, entry.taken, entry.limit, entry.unfinished, entry.held))
        else
          call('HDEL', SLOTS, key)
        end
      end
    end
  end
end
