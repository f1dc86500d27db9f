#!lua flags=allow-oom
-- @include due
-- Removes one job, in whatever state. Allowed when memory is full: it frees some.
--
-- KEYS     all parts of the queue
-- ARGV     5 id
-- Returns  the state the job was in, 0 when there was none
-- Publishes  the end of the lease when the job was RESERVED, and what move_due publishes; rings as move_due makes jobs READY
-- Twice    the second time there is no job any more
local id = ARGV[FIRST]
local woken = move_due()
load({ id })
local job = jobs[id]
local state = 0
if job then
  state = is_over(job) and 0 or job[F_STATE]
  if state == RESERVED then
    announce_end(id, job, 'DELETED')
  end
  remove(id, 'delete')
  commit()
end
if woken then
  ring()
end
return state
