-- @include record
-- Unique keys: UNIQUE has for each key in force when it expires (ms, 0: not by time) and the id of the job that keeps
-- it; UNIQUE_EXPIRY those that expire, for sweep. A key is freed by its job (below) or by time.
-- As P_UNIQUE's second field says; 2 is until success.
local UNTIL_START, UNTIL_EXPIRY = 1, 3

local unique = {}
local function with_unique()
  local entries, dirty = {}, {} -- key → {expires, id} or false
  local function entry_of(key)
    local entry = entries[key]
    if entry == nil then
      local packed = call('HGET', UNIQUE, key)
      entry = false
      if packed then
        local expires, next = struct.unpack('>I6', packed)
        entry = { expires, string.sub(packed, next) }
      end
      entries[key] = entry
    end
    return entry
  end

  -- The id of the job that keeps this job's unique key from it; nil: none does.
  function unique.keeper(job)
    local wish = policy_of(job, P_UNIQUE)
    local entry = wish and entry_of(wish[1])
    if entry and (entry[1] == 0 or entry[1] > NOW) then
      return entry[2]
    end
  end

  function unique.take(id, job)
    local wish = policy_of(job, P_UNIQUE)
    if wish then
      local expires = wish[3] and job[F_PUT_AT] + wish[3] or 0
      entries[wish[1]] = { expires, id }
      dirty[wish[1]] = true
    end
  end

  function unique.free(id, job)
    local wish = policy_of(job, P_UNIQUE)
    local entry = wish and entry_of(wish[1])
    if entry and entry[2] == id then
      entries[wish[1]] = false
      dirty[wish[1]] = true
    end
  end

  -- The job passes to a state, or is gone (nil), by this cause: does that free its key?
  function unique.pass(id, job, to, cause)
    local wish = policy_of(job, P_UNIQUE)
    if not wish then
      return
    end
    local done = to == COMPLETED or (not to and (cause == 'complete' or cause == 'pull'))
    local started = to == RESERVED
    if to == FAILED or cause == 'delete' or (done and wish[2] ~= UNTIL_EXPIRY) or (started and wish[2] == UNTIL_START) then
      unique.free(id, job)
    end
  end

  function unique.write()
    for key in pairs(dirty) do
      local entry = entries[key]
      if entry then
        call('HSET', UNIQUE, key, struct.pack('>I6', entry[1]) .. entry[2])
      else
        call('HDEL', UNIQUE, key)
      end
      if entry and entry[1] > 0 then
        call('ZADD', UNIQUE_EXPIRY, string.format('%d', entry[1]), key)
      else
        call('ZREM', UNIQUE_EXPIRY, key)
      end
    end
    dirty = {}
  end
end
