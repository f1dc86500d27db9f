#!lua flags=allow-oom
-- @include history
-- Reads what happened after an event, and sees to it that what happens is written from now on. Allowed when memory is
-- full: the history is bounded.
--
-- KEYS     all parts of the queue
-- ARGV     5 number of the event after which to read ('': only the last one is shown, if it is there), 6 at most so many,
--          7 for how long to write (ms), 8 when that event happened (ms, 0: not known)
-- Returns  1 the number of the last event, 2 the number after which nothing is missing in what follows, or -1 when another
--          event has the number that was given, then for each event its number and its JSON
-- Publishes  nothing
-- Twice    yes
local after, most, write_for = ARGV[FIRST], tonumber(ARGV[FIRST + 1]), tonumber(ARGV[FIRST + 2])
local happened_at = tonumber(ARGV[FIRST + 3])
local last = tonumber(call('HGET', META, 'events') or 0)
if not is_watched then
  -- What happened until now was not written: a number is left out.
  last = call('HINCRBY', META, 'events', 1)
end
if tonumber(meta[META_WATCHED] or 0) < NOW + write_for * 0.9 then
  call('HSET', META, 'watched_until', string.format('%d', NOW + write_for))
end
local function number_of(entry)
  return tonumber(string.match(entry[1], '^%d+'))
end

if after == '' then
  local newest = call('XREVRANGE', HISTORY, '+', '-', 'COUNT', 1)[1]
  return { last, last, unpack(newest and number_of(newest) == last and { last, newest[2][2] } or {}) }
end
local from = tonumber(after)

-- Begins with the event itself, if that is still there.
local entries = call('XRANGE', HISTORY, string.format('%d-0', from), '+', 'COUNT', most + 1)
local own = entries[1] and number_of(entries[1]) == from and table.remove(entries, 1)
if own and happened_at > 0 and tonumber(string.match(own[2][2], '"at":(%d+)')) ~= happened_at then
  -- Redis has lost the end of its data, and another event has the number since.
  return { last, -1 }
end
entries[most + 1] = nil
local answer = { last, from }
local expected = from + 1
for _, entry in ipairs(entries) do
  local number = number_of(entry)
  if number ~= expected then
    if #answer > 2 then
      -- The hole is the next call's.
      return answer
    end
    answer[2] = number - 1
  end
  append(answer, number)
  append(answer, entry[2][2])
  expected = number + 1
end
-- What happened after it was not written, or is gone; or its number never was, and is from another life of this queue.
if #entries == 0 and last ~= from then
  answer[2] = last
end
return answer
