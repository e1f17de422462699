#!lua flags=allow-oom
-- apply: carries out what a task decided for the events that it has claimed. One script for every move out of a lease, so
-- that a batch costs one round trip. A decision whose lease is not the caller's any more moves nothing.
-- ARGV: tenant, token, 1 if the task ends with this, decisions and totals as JSON. Returns each one's state, or 'lost'.
local tenant, token, last = unpack(ARGV)
local decisions, now, BY = cjson.decode(ARGV[4]), now_ms(), 'process'

-- Held, dead or final: what leads out of the task.
local function finish(id, was, d, fields)
  fields.who = d.who
  enter(tenant, id, was.state, d.to, now, BY, { reason = d.reason, detail = d.detail, move = d.move, fields = fields })
end

local apply = {}

-- Whoever had a registration gives it back. An intent that may have been applied is kept as a doubt: after a replay the
-- first try reads it, and knows a write of its own.
local function leave(id, was, d)
  release(tenant, id, was.registration)
  if d.registration then note_try(tenant, id, d.registration) end
  finish(id, was, d, { registration = d.registration, doubt = d.keep_intent and (was.intent or was.doubt) or nil })
end

apply.drop, apply.hold, apply.bury = leave, leave, leave

-- Rhythm says what the result says. The values are ours when this event or its delivery wrote them.
function apply.settle(id, was, d)
  local registration, delivery = key(tenant, 'registration', d.registration), key(tenant, 'delivery', was.delivery)
  local record = read(registration, 'sys_version', 'event', 'owner', 'rev')
  local writer, fields, gone = record.event, { rev = int((record.rev or 0) + 1) }, { 'e:' .. id }
  if was.registration ~= d.registration then release(tenant, id, was.registration) end
  if record.owner == id then table.insert(gone, 'owner') end
  if d.sys_version and d.sys_version > tonumber(record.sys_version or -1) then fields.sys_version = int(d.sys_version) end
  if d.result == 'written' or (writer and redis.call('HGET', key(tenant, 'event', writer), 'delivery') == was.delivery) then
    if writer and writer ~= id then fields['e:' .. writer] = '' end
    fields.event, fields.values = id, d.values
    table.insert(gone, 'accepted')
  else
    fields['e:' .. id] = ''
  end
  redis.call('HDEL', registration, unpack(gone))
  set_fields(registration, fields)
  keep_identity(registration)
  redis.call('HSET', delivery, 'applied', was.version)
  redis.call('HINCRBY', delivery, 'rev', 1)
  keep_identity(delivery)
  add('synced:' .. d.result, 1)
  finish(id, was, d, { registration = d.registration, result = d.result })
end

-- Back to the index, due later. An attempt is counted when the try reached Rhythm; an intent stays when the write may
-- have been applied.
function apply.defer(id, was, d)
  local event = key(tenant, 'event', id)
  if d.attempt then
    redis.call('HINCRBY', event, 'attempts', 1)
    redis.call('HSETNX', event, 'first_attempt_at', int(now))
  end
  if not d.keep_intent then
    release(tenant, id, was.registration)
    redis.call('HDEL', event, 'intent', 'doubt', 'registration')
  end
  redis.call('HDEL', event, 'lease', 'batch', 'expiries', 'alone')
  redis.call('ZADD', key(tenant, INDEX[was.state]), int(now + d.delay), id)
  if d.reason then
    redis.call('HSET', event, 'reason', d.reason, 'detail', d.detail or '')
    note(tenant, id, now, BY, d)
  end
end

local states, moved = {}, false
for i, d in ipairs(decisions) do
  local was = read(
    key(tenant, 'event', d.id), 'lease', 'state', 'delivery', 'version', 'registration', 'who', 'received_at', 'intent', 'doubt'
  )
  if was.lease == token then
    if d.who then set_names(tenant, was.who or '', d.who, was.received_at) end
    apply[d.move](d.id, was, d)
    states[i] = d.to or was.state
    moved = moved or d.to or d.attempt -- what is only put back does not count as movement
  else
    states[i] = 'lost'
  end
end
write_counts(tenant)
for name, by in pairs(cjson.decode(ARGV[5])) do redis.call('HINCRBY', key(tenant, 'totals'), name, by) end
if moved then redis.call('SET', key(tenant, 'moved'), int(now)) end
-- Only a task that had a slot asks for more: tasks that find all slots busy would keep sending hints to each other.
local had_slot = last == '1' and redis.call('ZREM', key(tenant, 'slots'), token) == 1
if had_slot and has_work(tenant, now) then hint(tenant, now) end
return say(states)
