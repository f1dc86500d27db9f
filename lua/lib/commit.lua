-- @include job
-- Writing what a script has changed.

-- The lowest score of a set, false when it is empty, nil when this script does not know: what is known need not be asked
-- for again (lib/due.lua).
local heads = {}

local note_head, report_aside, set_aside, load_members, commit
do
  function note_head(set, at)
    local head = heads[set]
    if head == false or (head and at < head) then
      heads[set] = at
    end
  end

  local function write_changes()
    local waiting = nil
    local n = #states
    for i = 1, changes do
      local id = changed[i]
      local job = jobs[id]
      if job then
        local set, member = SET_OF[job[F_STATE]], member_of(id, job)
        local before = job[F_WAS_SET]
        if before and (before ~= set or job[F_WAS_MEMBER] ~= member) then
          leave(before, job[F_WAS_MEMBER])
        end
        job[F_WAS_SET], job[F_WAS_MEMBER] = nil, nil
        local is_fresh = before == false and set == READY_SET and job[F_POLICY] == ''
        if not is_fresh or unreadable[id] then
          n = n + 2
          states[n - 1], states[n] = id, encode(job)
        end
        local list = into[set]
        if not list then
          list = {}
          into[set] = list
        end
        local length = #list
        list[length + 1], list[length + 2] = score_of(job), member
        if set == RESERVED_SET then
          note_head(set, job[F_AT])
        elseif set == SCHEDULED_SET or set == RETRYING_SET then
          note_head(set, job[F_AT])
          waiting = waiting or {}
          waiting[member] = true
        end
      end
    end
    local ready = into[READY_SET] ~= nil
    for set, members in pairs(out) do
      heads[set] = nil
      call_in_pieces('ZREM', set, members, 1)
    end
    for set, members in pairs(into) do
      call_in_pieces('ZADD', set, members, 2)
    end
    call_in_pieces('HDEL', STATE, gone, 1)
    call_in_pieces('HDEL', SPEC, gone, 1)
    call_in_pieces('HDEL', RESULT, gone, 1)
    call_in_pieces('HDEL', RESULT, results_gone, 1)
    call_in_pieces('HSET', STATE, states, 2)
    call_in_pieces('HSET', SPEC, specs, 2)
    call_in_pieces('HSET', RESULT, results, 2)
    write_clocks()
    if has_keys then
      slots.write()
      unique.write()
    end
    write_stats()
    if is_watched then
      write_history()
    end
    for i = 1, #messages, 2 do
      call('PUBLISH', messages[i], messages[i + 1])
    end
    changed, changes, into, out, states = {}, 0, {}, {}, {}
    specs, results, gone, results_gone, messages = {}, {}, {}, {}, {}

    if not ready and waiting then
      for _, set in ipairs({ SCHEDULED_SET, RETRYING_SET }) do
        local head = call('ZRANGE', set, 0, 0)[1]
        ready = ready or (head and waiting[head]) or false
      end
    end
    return ready
  end

  -- Records that nobody can work on: no job, bytes that are none, or a job that stands elsewhere. They leave the set, so
  -- that they block nobody, and their bytes are kept in ASIDE; sweep tells the broker, for its log.
  local MOST_UNREPORTED = 100
  function report_aside(id)
    local unreported = call('HGET', META, 'unreported')
    unreported = unreported and cmsgpack.unpack(unreported) or {}
    if #unreported < MOST_UNREPORTED then
      append(unreported, id)
      call('HSET', META, 'unreported', cmsgpack.pack(unreported))
    end
  end

  function set_aside(set, member)
    local id = id_of(set, member)
    local job = jobs[id]
    heads[set] = nil
    call('ZREM', set, member)
    if not job then
      call('HSET', ASIDE, id, unreadable[id] or '')
      -- With its spec alone it would be a fresh job: an empty record says that it is none.
      if call('HEXISTS', SPEC, id) == 1 then
        call('HSET', STATE, id, '')
      else
        call('HDEL', STATE, id)
      end
    elseif not job[F_WAS_SET] and SET_OF[job[F_STATE]] == set and member_of(id, job) == member then
      -- It stands where it should, but has no spec, so there is nothing to hand out.
      call('HSET', ASIDE, id, encode(job))
      announce_end(id, job, 'DELETED')
      remove(id, 'delete')
    end
    report_aside(id)
  end

  -- The ids of these members of a state's set, loaded; what is no job of that state is set aside.
  function load_members(set, state, members)
    local ids = {}
    for i = 1, #members do
      ids[i] = id_of(set, members[i])
    end
    load(ids)
    local good = {}
    for i = 1, #ids do
      local job = jobs[ids[i]]
      local was_set = job and job[F_WAS_SET]
      if
        job
        and (was_set or SET_OF[job[F_STATE]]) == set
        and (was_set and job[F_WAS_MEMBER] or member_of(ids[i], job)) == members[i]
      then
        good[#good + 1] = ids[i]
      else
        set_aside(set, members[i])
      end
    end
    return good
  end

  -- Slots that are free go to held jobs: about so many in one script, but at least one of each key that the script has
  -- touched. So wherever jobs are held, one has a slot, and by its end lets the next ones in.
  local FILL_BATCH = 100
  local function fill_slots()
    local left, is_filled = FILL_BATCH, false
    for key, entry in pairs(slots.entries) do
      while entry.touched and entry.held > 0 and entry.taken < entry.limit do
        local free = math.min(entry.limit - entry.taken, math.max(left, 1))
        local members = call('ZRANGEBYLEX', HELD_SET, '[' .. key .. '\0', '(' .. key .. '\1', 'LIMIT', 0, free)
        local ids = load_members(HELD_SET, HELD, members)
        for _, id in ipairs(ids) do
          move(id, READY, jobs[id][F_AT], 'free')
        end
        left = left - #ids
        is_filled = is_filled or #ids > 0
        if #members < free then
          entry.held, entry.dirty = 0, true
        end
        -- Else what stood there was set aside: look further.
        entry.touched = #ids == 0
      end
      entry.touched = nil
    end
    return is_filled
  end

  -- Writes what has changed, and forgets it: a script may load, change and commit again.
  -- Returns whether a worker may have something to do earlier than it knows.
  function commit()
    local ready = write_changes()
    if has_keys and fill_slots() then
      ready = write_changes() or ready
    end
    return ready
  end
end

-- The doorbell: at most one token, and never a job.
local function ring()
  if call('LLEN', WAKE) == 0 then
    call('LPUSH', WAKE, '1')
  end
end
