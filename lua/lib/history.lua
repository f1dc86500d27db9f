-- @include record
-- What Watch resumes from: a capped stream of what happened, one entry for each transition, written only while somebody
-- watches (watch.lua renews META's watched_until), so that a queue that nobody watches pays nothing.
--
-- Events are numbered: entry n has the id n-0. The numbers have no hole while events are written, and one number is left
-- out whenever writing begins anew: so a reader that finds a hole knows that it has missed something.
local note, write_history
if is_watched then
  local events = {} -- JSON of each

  -- `to`: the state, 0 for gone.
  function note(id, job, cause, to)
    local progress = ''
    if cause == 'report' then
      local percent, _, text = progress_of(job)
      progress = string.format(',"p":%d,"n":%s', percent, cjson.encode(text))
    end
    events[#events + 1] = string.format(
      '{"id":%s,"t":"%s","s":%d,"at":%d,"a":%d,"f":%d,"w":%s,"due":%d%s}',
      cjson.encode(id),
      cause,
      to,
      NOW,
      job[F_ATTEMPT],
      job[F_FAILURES],
      cjson.encode(job[F_WORKER]),
      (to == SCHEDULED or to == RETRYING) and job[F_AT] or 0,
      progress
    )
  end

  function write_history()
    if #events == 0 then
      return
    end
    local most = setting('history_max')
    local last = call('HINCRBY', META, 'events', #events)
    for i = 1, #events do
      call('XADD', HISTORY, 'MAXLEN', '~', most, string.format('%d-0', last - #events + i), 'e', events[i])
    end
    events = {}
    call('PUBLISH', CHANNEL .. 'history', '')
  end
end
