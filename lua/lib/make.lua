-- @include commit
-- Making jobs, for put and for schedules.

-- `options`: {priority, delay | run_at (ms), policy: as F_POLICY}
local function make(id, spec, options, nonce)
  local due = options.run_at or (options.delay and NOW + options.delay) or 0
  local state = due > NOW and SCHEDULED or READY
  create(id, {
    state,
    options.priority or 0,
    0,
    0,
    tick('order', NOW),
    state == SCHEDULED and due or 0,
    0,
    NOW,
    nonce,
    0,
    0,
    0,
    0,
    '',
    options.policy and cmsgpack.pack(options.policy) or '',
    -- F_WAS_SET, F_WAS_MEMBER, F_UNPACKED, F_SLOT, F_HOLDER, F_PROGRESS
    nil,
    nil,
    options.policy,
    nil,
    nil,
    nil,
  }, spec)
end
