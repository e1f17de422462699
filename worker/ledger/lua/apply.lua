#!lua flags=allow-oom
-- settle: what a stage decided for the events it has claimed. One script for every move out of a lease, so that a
-- batch costs one round trip. A decision whose lease is not the caller's any more moves nothing.
-- ARGV: tenant, stage, token, keep-payload in ms, keep-identity in ms, 1 if the task ends with this, decisions as JSON,
-- then one outcome for each
-- decision in order ('' where it has none). Returns the state after each decision, or 'lost'.
local tenant, stage, token, keep, identity, last = unpack(ARGV)
local decisions = cjson.decode(ARGV[7])
local now = now_ms()
local FIRST_OUTCOME = 8
local prepared = false

local function identified(record)
  redis.call('PEXPIRE', record, identity)
end

-- Deduplication: is this version of the delivery known by another event that still counts? Returns that event, whether
-- another rescore has replaced the version, and whether the event is of another person.
local function prior(id, decision)
  local delivery = key(tenant, 'delivery', decision.delivery)
  local other = redis.call('HGET', delivery, 'v:' .. decision.version)
  if not other or other == id then return nil end
  local state, who = unpack(redis.call('HMGET', key(tenant, 'event', other), 'state', 'who'))
  if state == 'dead' or state == 'discarded' then return nil end
  if strangers(who or '', decision.who or '') then return other, false, true end
  local applied = redis.call('HGET', delivery, 'applied')
  local rescored_away = applied and applied ~= decision.version
    and string.sub(applied, 1, 1) == 'r' and string.sub(decision.version, 1, 1) == 'r'
  return other, rescored_away
end

-- One `eventId` always means one result of one delivery.
local function contradicts(decision)
  if not decision.ref then return false end
  local ref = key(tenant, 'ref', decision.ref)
  local meant = decision.delivery .. ' ' .. decision.version
  local known = redis.call('GET', ref)
  if known and known ~= meant and not decision.accepts.result_conflict then return true end
  redis.call('SET', ref, meant, 'PX', identity)
  return false
end

local apply = {}

-- Ready, held, dead or final: what leads out of the stage.
local function finish(id, was, d, fields)
  fields.who = d.who
  enter(tenant, id, was.state, d.to, now, {
    reason = d.reason, detail = d.detail, move = d.move, by = stage, keep = keep, fields = fields,
  })
end

function apply.prepare(id, was, d, outcome)
  local fields = { delivery = d.delivery, version = d.version }
  local other, rescored_away, stranger = prior(id, d)
  if stranger and d.accepts.result_conflict then other, stranger = nil, false end
  if stranger then
    d.to, d.move, d.reason = 'held', 'hold', 'result_conflict'
    d.detail = 'another person has the same result under the same id, as in ' .. other
  elseif other and rescored_away and not d.accepts.result_repeated then
    d.to, d.move, d.reason = 'held', 'hold', 'result_repeated'
    d.detail = 'a rescore that another has replaced came again, as in ' .. other
  elseif contradicts(d) then
    d.to, d.move, d.reason = 'held', 'hold', 'result_conflict'
    d.detail = 'its eventId came before with another result'
  elseif other and not rescored_away then
    d.to, d.move, d.detail = 'duplicate', 'drop', 'same as ' .. other
  else
    local delivery = key(tenant, 'delivery', d.delivery)
    if redis.call('HSET', delivery, 'v:' .. d.version, id) == 1 then redis.call('HINCRBY', delivery, 'rev', 1) end
    identified(delivery)
    redis.call('SET', key(tenant, 'outcome', id), outcome)
    d.to, prepared = 'ready', true
  end
  finish(id, was, d, fields)
end

-- Whoever had a registration gives it back; `trace` still finds who tried there. An intent that may have been applied
-- is kept as a doubt: after a replay the first try reads it, and knows a write of its own.
local function leave(id, was, d)
  release(tenant, id, was.registration)
  if d.registration then
    local record = key(tenant, 'registration', d.registration)
    redis.call('HSET', record, 'e:' .. id, '')
    identified(record)
  end
  finish(id, was, d, { registration = d.registration, doubt = d.keep_intent and was.intent or nil })
end

apply.drop, apply.hold, apply.bury = leave, leave, leave

-- Rhythm says what the result says. The values are ours when this event or its delivery wrote them.
function apply.settle(id, was, d)
  local record = key(tenant, 'registration', d.registration)
  local highest, writer, owner, rev = unpack(redis.call('HMGET', record, 'sys_version', 'event', 'owner', 'rev'))
  local fields, gone = { rev = int((rev or 0) + 1) }, {}
  if was.registration and was.registration ~= d.registration then release(tenant, id, was.registration) end
  if owner == id then table.insert(gone, 'owner') end
  if d.sys_version and d.sys_version > tonumber(highest or -1) then fields.sys_version = int(d.sys_version) end
  local of = writer and redis.call('HGET', key(tenant, 'event', writer), 'delivery')
  local ours = d.result == 'written' or of == was.delivery
  if ours then
    if writer and writer ~= id then fields['e:' .. writer] = '' end
    fields.event = id
    in_pieces(fields, writer and gone or {}, 'values', d.values)
    table.insert(gone, 'accepted')
    table.insert(gone, 'e:' .. id)
  else
    fields['e:' .. id] = ''
  end
  set_fields(record, fields)
  if #gone > 0 then redis.call('HDEL', record, unpack(gone)) end
  local left = math.ceil(#d.values / 64) + 9 -- beyond what `in_pieces` names: values were much longer before
  while ours and writer and redis.call('HDEL', record, 'values:' .. left) == 1 do left = left + 1 end
  identified(record)
  local delivery = key(tenant, 'delivery', was.delivery)
  redis.call('HSET', delivery, 'applied', was.version)
  redis.call('HINCRBY', delivery, 'rev', 1)
  identified(delivery)
  add(tenant, 'synced:' .. d.result, 1)
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
    note(tenant, id, now, d.move, stage, d.reason)
  end
end

-- The lease on an event, and the event as this script finds it.
local function was_of(id)
  local told = redis.call(
    'HMGET', key(tenant, 'event', id), 'lease', 'state', 'delivery', 'version', 'registration', 'who', 'received_at',
    'intent', 'doubt'
  )
  return told[1], {
    state = told[2], delivery = told[3], version = told[4], registration = told[5], who = told[6] or '', received_at = told[7],
    intent = told[8] or told[9] or nil,
  }
end

local states, moved = {}, false
begin_counts()
for i, decision in ipairs(decisions) do
  local id = decision.id
  local lease, was = was_of(id)
  if lease == token and was.state == (stage == 'process' and 'received' or 'ready') then
    if decision.who then name(tenant, was.who, decision.who, was.received_at) end
    apply[decision.move](id, was, decision, ARGV[FIRST_OUTCOME + i - 1])
    states[i] = decision.to or was.state
    moved = moved or decision.to or decision.attempt -- what is only put back does not count as movement
  else
    states[i] = 'lost'
  end
end
end_counts(tenant)
if moved then redis.call('SET', key(tenant, 'moved', stage), int(now)) end
if prepared then hint(tenant, 'sync', now) end
if last == '1' then end_task(tenant, stage, token, now) end
return say(states)
