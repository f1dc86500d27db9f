#!lua flags=allow-oom
-- @include due
-- Removes one job, in whatever state. Allowed when memory is full: it frees some.
--
-- KEYS     all parts of the queue
-- ARGV     5 id
-- Returns  the state the job was in, 0 when there was none
-- Publishes  that the job is gone, and what move_due publishes; rings when a job became READY
-- Twice    the second time there is no job any more
local id = ARGV[FIRST]
local woken = move_due()
load({ id })
local job = jobs[id]
local state = 0
if job then
  if is_over(job) then
    remove(id, 'trim')
  else
    state = job[F_STATE]
    announce_end(id, job, 'DELETED')
    remove(id, 'delete')
  end
  woken = commit() or woken
end
if woken then
  ring()
end
return state
