#!lua flags=allow-oom
-- @include due
-- Removes jobs of one state, those first that stand first. Allowed when memory is full: it frees some.
--
-- KEYS     all parts of the queue
-- ARGV     5 state, 6 look at so many, 7 and remove those that were put until this time (ms; '': all), 8 how many of the
--          first to pass over
-- Returns  1 how many were removed, 2 how many are left in that state, 3 how many of those looked at were put later
-- Publishes  that each job is gone, and what move_due publishes; rings when a job became READY
-- Twice    the second time others are removed; the caller counts
local state, most = tonumber(ARGV[FIRST]), tonumber(ARGV[FIRST + 1])
local latest, from = tonumber(ARGV[FIRST + 2]) or NOW, tonumber(ARGV[FIRST + 3])
local set = SET_OF[state]
local woken = move_due()
local ids = load_members(set, state, call('ZRANGE', set, from, from + most - 1))
local removed, later = 0, 0
for _, id in ipairs(ids) do
  if is_over(jobs[id]) then
    remove(id, 'trim')
  elseif jobs[id][F_PUT_AT] <= latest then
    announce_end(id, jobs[id], 'DELETED')
    remove(id, 'delete')
    removed = removed + 1
  else
    later = later + 1
  end
end
if commit() or woken then
  ring()
end
return { removed, call('ZCARD', set), later }
