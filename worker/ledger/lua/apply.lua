#!lua flags=allow-oom
-- apply: carries out what a stage decided for the events that it has claimed. One script for every move out of a lease, so
-- that a batch costs one round trip. A decision whose lease is not the caller's any more moves nothing.
-- ARGV: tenant, stage, token, 1 if the task ends with this, decisions as JSON, then one outcome for each decision in order
-- ('' where it has none). Returns the state after each decision, or 'lost'.
local tenant, stage, token, last = unpack(ARGV)
local decisions, FIRST_OUTCOME = cjson.decode(ARGV[5]), 6
local now = now_ms()

-- Deduplication: is this version of the delivery known by another event that still counts? Returns that event, whether
-- another rescore has replaced the version, and whether the event is of another person.
local function prior(id, d)
  local delivery = read(key(tenant, 'delivery', d.delivery), 'v:' .. d.version, 'applied')
  local other, applied = delivery['v:' .. d.version], delivery.applied
  if not other or other == id then return nil end
  local its = read(key(tenant, 'event', other), 'state', 'who')
  if its.state == 'dead' or its.state == 'discarded' then return nil end
  if strangers(its.who or '', d.who or '') then return other, false, true end
  local both_rescores = string.sub(applied or '', 1, 1) == 'r' and string.sub(d.version, 1, 1) == 'r'
  return other, both_rescores and applied ~= d.version
end

-- One `eventId` always means one result of one delivery.
local function contradicts(d)
  if not d.ref then return false end
  local ref, meant = key(tenant, 'ref', d.ref), d.delivery .. ' ' .. d.version
  local meant_before = redis.call('GET', ref)
  if meant_before and meant_before ~= meant and not d.accepts.result_conflict then return true end
  redis.call('SET', ref, meant, 'PX', IDENTITY_KEPT)
  return false
end

-- Ready, held, dead or final: what leads out of the stage.
local function finish(id, was, d, fields)
  fields.who = d.who
  enter(tenant, id, was.state, d.to, now, stage, { reason = d.reason, detail = d.detail, move = d.move, fields = fields })
end

local apply = {}

function apply.prepare(id, was, d, outcome)
  local function hold(reason, detail) d.to, d.move, d.reason, d.detail = 'held', 'hold', reason, detail end
  local other, rescored_away, stranger = prior(id, d)
  if stranger and d.accepts.result_conflict then other, stranger = nil, false end
  if stranger then
    hold('result_conflict', 'another person has the same result under the same id, as in ' .. other)
  elseif other and rescored_away and not d.accepts.result_repeated then
    hold('result_repeated', 'a rescore that another has replaced came again, as in ' .. other)
  elseif contradicts(d) then
    hold('result_conflict', 'its eventId came before with another result')
  elseif other and not rescored_away then
    d.to, d.move, d.detail = 'duplicate', 'drop', 'same as ' .. other
  else
    local delivery = key(tenant, 'delivery', d.delivery)
    if redis.call('HSET', delivery, 'v:' .. d.version, id) == 1 then redis.call('HINCRBY', delivery, 'rev', 1) end
    keep_identity(delivery)
    redis.call('SET', key(tenant, 'outcome', id), outcome)
    d.to = 'ready'
  end
  finish(id, was, d, { delivery = d.delivery, version = d.version })
end

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
  redis.call('ZADD', key(tenant, 'due:' .. stage), int(now + d.delay), id)
  if d.reason then
    redis.call('HSET', event, 'reason', d.reason, 'detail', d.detail or '')
    note(tenant, id, now, stage, d)
  end
end

local states, moved, prepared = {}, false, false
for i, d in ipairs(decisions) do
  local was = read(
    key(tenant, 'event', d.id), 'lease', 'state', 'delivery', 'version', 'registration', 'who', 'received_at', 'intent', 'doubt'
  )
  if was.lease == token and was.state == (stage == 'process' and 'received' or 'ready') then
    if d.who then set_names(tenant, was.who or '', d.who, was.received_at) end
    apply[d.move](d.id, was, d, ARGV[FIRST_OUTCOME + i - 1])
    states[i] = d.to or was.state
    moved = moved or d.to or d.attempt -- what is only put back does not count as movement
    prepared = prepared or d.to == 'ready'
  else
    states[i] = 'lost'
  end
end
write_counts(tenant)
if moved then redis.call('SET', key(tenant, 'moved', stage), int(now)) end
if prepared then hint(tenant, 'sync', now) end
if last == '1' then end_task(tenant, stage, token, now) end
return say(states)
