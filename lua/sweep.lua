#!lua flags=allow-oom
-- @include due
-- Does what time asks for, where nobody reserves: moves what is due, removes finished jobs whose time is over, and
-- trims the dead letter by age and by count. Allowed when memory is full: it frees some.
--
-- KEYS     all parts of the queue
-- ARGV     none of its own
-- Returns  1 whether there is more to do at once (1) or not (0), 2 how long until the next job is due or the next lease ends (ms, -1: nothing)
-- Publishes  what move_due publishes; rings when a job became READY
-- Twice    yes

-- So many finished jobs in one call: removing is three HDEL and a ZREM a job, about 2 µs.
local TRIM_BATCH = 500
-- A broker's last reserve call is remembered in META for replays within seconds; those of brokers long gone go here.
local FORGET_CALLS_AFTER = 600000
local MANY_CALLERS = 16

local woken, more = move_due()

local function trim(set, ids, cause)
  if #ids == 0 then
    return
  end
  load(ids)
  for _, id in ipairs(ids) do
    if jobs[id] then
      remove(id, cause)
    end
  end
  commit()
  more = more or #ids == TRIM_BATCH
end

trim(COMPLETED_SET, call('ZRANGE', COMPLETED_SET, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, TRIM_BATCH), 'trim')
local too_old = NOW - defaults().dead_letter_age
trim(FAILED_SET, call('ZRANGE', FAILED_SET, '-inf', too_old, 'BYSCORE', 'LIMIT', 0, TRIM_BATCH), 'trim')
local surplus = call('ZCARD', FAILED_SET) - defaults().dead_letter_max
if surplus > 0 then
  trim(FAILED_SET, call('ZRANGE', FAILED_SET, 0, math.min(surplus, TRIM_BATCH) - 1), 'trim')
end

if call('HLEN', META) > MANY_CALLERS then
  local fields = call('HGETALL', META)
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 8) == 'reserve:' and cmsgpack.unpack(fields[i + 1])[2] < NOW - FORGET_CALLS_AFTER then
      call('HDEL', META, fields[i])
    end
  end
end

if woken then
  ring()
end
return { more and 1 or 0, next_due() }
