#!lua flags=allow-oom
-- @include due
-- @include rates
-- @include schedule
-- Does what time asks for, where nobody reserves: moves what is due, removes finished jobs whose time is over, trims the
-- dead letter by age and by count, frees unique keys whose time is over, and puts away what nobody needs any more.
-- Allowed when memory is full: it frees some.
--
-- KEYS     all parts of the queue
-- ARGV     none of its own
-- Returns  1 whether there is more to do at once (1) or not (0), 2 how long until the next job or schedule is due or the next
--          lease ends (ms, -1: nothing), 3 ids of records set aside since the last sweep, 4 schedules that are due, as
--          schedules.due says
-- Publishes  what move_due publishes; rings when a job became READY
-- Twice    yes
-- So many finished jobs in one call: removing is three HDEL and a ZREM a job, about 2 µs.
local TRIM_BATCH = 500
-- A broker's last reserve call is remembered in META for replays within seconds; those of brokers long gone go here.
local FORGET_CALLS_AFTER = 600000
local MANY_CALLERS = 64

local woken, more = move_due()

local function trim(state, members)
  for _, id in ipairs(load_members(SET_OF[state], state, members)) do
    remove(id, 'trim')
  end
  commit()
  more = more or #members == TRIM_BATCH
end

trim(COMPLETED, call('ZRANGE', COMPLETED_SET, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, TRIM_BATCH))
local too_old = NOW - setting('dead_letter_age')
trim(FAILED, call('ZRANGE', FAILED_SET, '-inf', too_old, 'BYSCORE', 'LIMIT', 0, TRIM_BATCH))
local surplus = call('ZCARD', FAILED_SET) - setting('dead_letter_max')
if surplus > 0 then
  trim(FAILED, call('ZRANGE', FAILED_SET, 0, math.min(surplus, TRIM_BATCH) - 1))
end

local expired = call('ZRANGE', UNIQUE_EXPIRY, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, TRIM_BATCH)
if #expired > 0 then
  call('HDEL', UNIQUE, unpack(expired))
  call('ZREM', UNIQUE_EXPIRY, unpack(expired))
  more = more or #expired == TRIM_BATCH
end

if call('HLEN', META) > MANY_CALLERS then
  local fields = call('HGETALL', META)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 8) == 'reserve:' and cmsgpack.unpack(fields[i + 1])[2] < NOW - FORGET_CALLS_AFTER then
      call('HDEL', META, fields[i])
    end
  end
end

-- Once a day, what happened too long ago becomes part of the total.
local STATS_DAYS = 180
local today = math.floor(NOW / MS_PER_DAY)
if tonumber(call('HGET', META, 'stats_day') or 0) ~= today then
  call('HSET', META, 'stats_day', today)
  local fields = call('HGETALL', STATS)
  for i = 1, #fields, 2 do
    local name, day = string.match(fields[i], '^(.-):(%d+)$')
    if day and tonumber(day) <= today - STATS_DAYS then
      call('HINCRBY', STATS, name, fields[i + 1])
      call('HDEL', STATS, fields[i])
    end
  end
end

-- For the rates: what today's counters were at some moments of the last minute. Of an idle queue no more are taken.
local SAMPLE_EVERY, SAMPLES = 10000, 7
local samples = call('HGET', META, 'samples')
samples = samples and cmsgpack.unpack(samples) or {}
local newest, before = samples[#samples], samples[#samples - 1]
if not newest or newest[1] <= NOW - SAMPLE_EVERY then
  local sample = { NOW, unpack(counters_of(today)) }
  if not (before and are_same(before, newest) and are_same(newest, sample)) then
    append(samples, sample)
    if #samples > SAMPLES then
      table.remove(samples, 1)
    end
    call('HSET', META, 'samples', cmsgpack.pack(samples))
  end
end
-- Nobody has watched for a while.
if not is_watched then
  call('DEL', HISTORY)
end

local due_schedules = schedules.due()
local unreported = call('HGET', META, 'unreported')
if unreported then
  call('HDEL', META, 'unreported')
end
if woken then
  ring()
end
return { more and 1 or 0, next_due(), unreported and cmsgpack.unpack(unreported) or {}, due_schedules }
