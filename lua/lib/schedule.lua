-- @include make
-- Recurring schedules. SCHEDULES has for each id its record, MessagePack of {revision, definition, starts_at (where its
-- intervals begin), skip_overlap, paused, created_at, updated_at, last_run_at (0: never), last_job ('': none), runs,
-- skipped, postponed (nil, or the tick that TICKS does not show)}, times in ms; TICKS has the next tick of those that are
-- to run, in ms. When that is, and what job to put, the broker says: a script only claims a tick and puts its job in one
-- step. A revision is a random number that the broker gives each change, so that it knows its own.
local schedules = {}
do
  -- nil when there is none, and, with its bytes, when they are no record.
  function schedules.read(id)
    local packed = call('HGET', SCHEDULES, id)
    if not packed then
      return nil
    end
    local ok, schedule = pcall(cmsgpack.unpack, packed)
    if ok and type(schedule) == 'table' and schedule.revision and schedule.definition then
      return schedule
    end
    return nil, packed
  end

  function schedules.write(id, schedule)
    call('HSET', SCHEDULES, id, cmsgpack.pack(schedule))
  end

  -- META has it, too, where every call sees it (next_due).
  local function note_first_tick()
    local first = call('ZRANGE', TICKS, 0, 0, 'WITHSCORES')[2]
    meta[META_NEXT_TICK] = first or false
    if first then
      call('HSET', META, 'next_tick', first)
    else
      call('HDEL', META, 'next_tick')
    end
  end

  -- `next`: ms, or '' for none.
  function schedules.set_tick(id, next)
    if next == '' then
      call('ZREM', TICKS, id)
    else
      call('ZADD', TICKS, next, id)
    end
    note_first_tick()
  end

  -- Writes the schedule with its next tick.
  function schedules.plan(id, schedule, next)
    schedule.postponed = nil
    schedules.write(id, schedule)
    schedules.set_tick(id, next)
  end

  -- The next tick in ms; nil: none.
  function schedules.tick_of(id, schedule)
    return schedule.postponed or tonumber(call('ZSCORE', TICKS, id) or nil)
  end

  -- For people: definition, paused (1), created at, updated at, next tick, last run at, last job, runs, skipped, revision,
  -- where its intervals begin; times in ms, 0 for none.
  function schedules.view(id, schedule)
    return {
      id,
      schedule.definition,
      schedule.paused and 1 or 0,
      schedule.created_at,
      schedule.updated_at,
      schedules.tick_of(id, schedule) or 0,
      schedule.last_run_at,
      schedule.last_job,
      schedule.runs,
      schedule.skipped,
      schedule.revision,
      schedule.starts_at,
    }
  end

  -- Puts a run's job; false when it cannot be: the run before has not finished and that matters, or its unique key is
  -- taken. A job that has the id already was put for this very run.
  function schedules.run(schedule, at, job_id, spec, options, nonce, checks_overlap)
    local last = schedule.last_job
    load({ job_id, last })
    local previous = jobs[last]
    with_keys()
    local overlaps = checks_overlap and schedule.skip_overlap and previous and previous[F_STATE] < COMPLETED
    if overlaps or (not jobs[job_id] and options.policy and unique.keeper({ [F_UNPACKED] = options.policy })) then
      schedule.skipped = schedule.skipped + 1
      return false
    end
    if not jobs[job_id] then
      make(job_id, spec, options, nonce)
    end
    schedule.runs = schedule.runs + 1
    schedule.last_run_at = at
    schedule.last_job = job_id
    return true
  end

  -- In one sweep; the rest is still due in the next.
  local DUE_SCHEDULES, DUE_BYTES = 20, 4 * 1024 * 1024

  -- Those whose tick has come, the earliest first: now (ms), then for each: id, tick (ms), revision, where its intervals
  -- begin (ms), definition. What is no schedule is set aside.
  function schedules.due()
    local due = call('ZRANGE', TICKS, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, DUE_SCHEDULES, 'WITHSCORES')
    local answer, bytes = { NOW }, 0
    for i = 1, #due, 2 do
      local id = due[i]
      local schedule, unread = schedules.read(id)
      if schedule then
        bytes = bytes + #schedule.definition
        if bytes > DUE_BYTES and #answer > 1 then
          break
        end
        append(answer, id)
        append(answer, schedule.postponed or tonumber(due[i + 1]))
        append(answer, schedule.revision)
        append(answer, schedule.starts_at)
        append(answer, schedule.definition)
      else
        if unread then
          call('HSET', ASIDE, 'schedule ' .. id, unread)
          call('HDEL', SCHEDULES, id)
          report_aside('schedule ' .. id)
        end
        schedules.set_tick(id, '')
      end
    end
    return answer
  end
end
