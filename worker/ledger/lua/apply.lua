#!lua flags=allow-oom
-- apply: carries out what a task decided for the events that it has claimed. One script for every move out of a lease, so
-- that a batch costs one round trip. A decision whose lease is not the caller's any more moves nothing.
-- ARGV: tenant, token, 1 if the task ends with this, decisions and totals as JSON. Returns each one's state, or 'lost'.
local tenant, token, last = unpack(ARGV)
local decisions, now, BY, NEW = cjson.decode(ARGV[4]), now_ms(), 'process', 86400000
local apply = {}

-- Held, dead or final. Whoever had a registration gives it back. An intent that may have been applied is kept as a doubt:
-- after a replay the first try reads it, and knows a write of its own.
local function leave(id, event, d)
  release(tenant, id, event.registration)
  if d.registration then note_try(tenant, id, d.registration) end
  enter(tenant, id, d.to, now, BY, { reason = d.reason, detail = d.detail, move = d.move, fields = {
    registration = d.registration, words = d.words, doubt = d.keep_intent and (event.intent or event.doubt) or nil,
  } })
end

apply.drop, apply.hold, apply.bury = leave, leave, leave

-- Rhythm says what the result says. The values are ours when this event or its delivery wrote them.
function apply.settle(id, event, d)
  local record, delivery = hash(tenant, 'registration', d.registration), hash(tenant, 'delivery', event.delivery)
  local writer = record.event
  if event.registration ~= d.registration then release(tenant, id, event.registration) end
  if record.owner == id then record.owner = nil end
  record.rev = (record.rev or 0) + 1
  record['e:' .. id] = nil
  if d.sys_version and d.sys_version > tonumber(record.sys_version or -1) then record.sys_version = d.sys_version end
  if d.result == 'written' or (writer and hash(tenant, 'event', writer).delivery == event.delivery) then
    if writer and writer ~= id then record['e:' .. writer] = '' end
    record.event, record.values, record.base, record.accepted = id, d.values, d.base, nil
  else
    record['e:' .. id] = ''
  end
  keep_identity(tenant, 'registration', d.registration)
  delivery.applied, delivery.rev = event.version, (delivery.rev or 0) + 1
  if now - event.received_at > NEW then keep_identity(tenant, 'delivery', event.delivery) end -- else `prepare` just did
  add(tenant, 'synced:' .. d.result, 1)
  enter(tenant, id, 'synced', now, BY, { move = 'settle', fields = { registration = d.registration, result = d.result } })
end

-- Back to the index, due later. An attempt is counted when the try reached Rhythm; an intent stays when the write may
-- have been applied.
function apply.defer(id, event, d)
  if d.attempt then
    event.attempts, event.first_attempt_at = (event.attempts or 0) + 1, event.first_attempt_at or now
  end
  if not d.keep_intent then
    release(tenant, id, event.registration)
    event.intent, event.doubt, event.registration = nil, nil, nil
  end
  event.lease, event.batch, event.expiries, event.alone = nil, nil, nil, nil
  put(entering, key(tenant, INDEX[event.state]), int(now + d.delay), id)
  if d.reason then
    event.reason, event.detail = d.reason, d.detail or ''
    note(event, now, BY, d)
  end
end

local states, moved = {}, false
for i, d in ipairs(decisions) do
  local event = hash(tenant, 'event', d.id)
  if event.lease == token then
    if d.who then set_names(tenant, event, d.who) end
    apply[d.move](d.id, event, d)
    states[i] = event.state
    moved = moved or d.to or d.attempt -- what is only put back does not count as movement
  else
    states[i] = 'lost'
  end
end
write()
for name, by in pairs(cjson.decode(ARGV[5])) do redis.call('HINCRBY', key(tenant, 'totals'), name, by) end
local synced, hour = (counted[key(tenant, 'counts')] or {}).synced, key(tenant, 'synced', int(now / 3600000))
if synced and redis.call('INCRBY', hour, synced) then redis.call('PEXPIRE', hour, 172800000) end -- two days, for the console
if moved then redis.call('SET', key(tenant, 'moved'), int(now)) end
-- Only a task that had a slot asks for more: tasks that find all slots busy would keep sending hints to each other.
local had_slot = last == '1' and redis.call('ZREM', key(tenant, 'slots'), token) == 1
if had_slot and has_work(tenant, now) then hint(tenant, now) end
return say(states)
