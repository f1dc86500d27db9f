#!lua flags=allow-oom
-- @include view
-- Shows one job as it stands at this moment: what is due has moved.
--
-- KEYS     all parts of the queue
-- ARGV     5 id
-- Returns  nil when there is no such job, else what view_of says
-- Publishes  what move_due publishes; rings as move_due makes jobs READY
-- Twice    yes
local id = ARGV[FIRST]
if move_due() then
  ring()
end
load({ id })
local job = jobs[id]
if not job or is_over(job) then
  return false
end
return view_of(id, job, call('HGET', SPEC, id) or '', call('HGET', RESULT, id))
