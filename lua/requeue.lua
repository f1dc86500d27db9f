#!lua flags=allow-oom
-- @include due
-- Ends reservations whose lease is over, those first that ended first. Allowed when memory is full: it adds nothing.
--
-- KEYS     all parts of the queue
-- ARGV     5 at most so many
-- Returns  how many were ended
-- Publishes  ends of leases, completion events of jobs that may not be tried again; rings when a job became READY
-- Twice    the second time there are others, or none
local members = call('ZRANGE', RESERVED_SET, '-inf', NOW, 'BYSCORE', 'LIMIT', 0, ARGV[FIRST])
local ids = load_members(RESERVED_SET, RESERVED, members)
for _, id in ipairs(ids) do
  expire(id, jobs[id])
end
if commit() then
  ring()
end
return #ids
