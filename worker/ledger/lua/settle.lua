#!lua flags=allow-oom
-- settle: what a stage decided for the events it has claimed. One script for every move out of a lease, so that a
-- batch costs one round trip. A decision whose lease is not the caller's any more moves nothing.
-- ARGV: tenant, stage, token, keep-payload in ms, keep-identity in ms, decisions as JSON, then one outcome for each
-- decision in order ('' where it has none). Returns {hint for sync wanted, state after each decision or 'lost'}.
local tenant, stage, token, keep, identity = unpack(ARGV)
local decisions = cjson.decode(ARGV[6])
local now = now_ms()
local FIRST_OUTCOME = 7
local prepared = false

local function identified(record)
  redis.call('PEXPIRE', record, identity)
end

-- Deduplication: is this version of the delivery known by another event that still counts?
local function prior(id, decision)
  local delivery = key(tenant, 'delivery', decision.delivery)
  local other = redis.call('HGET', delivery, 'v:' .. decision.version)
  if not other or other == id then return nil end
  local state = redis.call('HGET', key(tenant, 'event', other), 'state')
  if state == 'dead' or state == 'discarded' then return nil end
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

-- Held, dead or final: what leads out of the stage.
local function finish(id, state, d, fields)
  enter(tenant, id, state, d.to, now, {
    reason = d.reason, detail = d.detail, move = d.move, by = stage, keep = keep, fields = fields,
  })
end

function apply.prepare(id, state, d, outcome)
  local fields = { delivery = d.delivery, version = d.version }
  local other, rescored_away = prior(id, d)
  if other and rescored_away and not d.accepts.result_repeated then
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
  finish(id, state, d, fields)
end

-- Whoever had a registration gives it back; `trace` still finds who tried there.
local function leave(id, state, d)
  release(tenant, id, redis.call('HGET', key(tenant, 'event', id), 'registration'))
  if d.registration then
    local record = key(tenant, 'registration', d.registration)
    redis.call('HSET', record, 'e:' .. id, '')
    identified(record)
  end
  finish(id, state, d, { registration = d.registration })
end

apply.drop, apply.hold, apply.bury = leave, leave, leave

-- Rhythm says what the result says. The values are ours when this event or its delivery wrote them.
function apply.settle(id, state, d)
  local record = key(tenant, 'registration', d.registration)
  local delivery_id, version, had = unpack(redis.call('HMGET', key(tenant, 'event', id), 'delivery', 'version', 'registration'))
  local highest, writer, owner = unpack(redis.call('HMGET', record, 'sys_version', 'event', 'owner'))
  local fields, gone = {}, {}
  if had and had ~= d.registration then release(tenant, id, had) end
  if owner == id then table.insert(gone, 'owner') end
  if d.sys_version and d.sys_version > tonumber(highest or -1) then fields.sys_version = int(d.sys_version) end
  local of = writer and redis.call('HGET', key(tenant, 'event', writer), 'delivery')
  local ours = d.result == 'written' or of == delivery_id
  if ours then
    if writer and writer ~= id then fields['e:' .. writer] = '' end
    fields.event = id
    in_pieces(fields, gone, 'values', d.values)
    table.insert(gone, 'accepted')
    table.insert(gone, 'e:' .. id)
  else
    fields['e:' .. id] = ''
  end
  set_fields(record, fields)
  if #gone > 0 then redis.call('HDEL', record, unpack(gone)) end
  local left = math.ceil(#d.values / 64) + 9 -- beyond what `in_pieces` names: values were much longer before
  while ours and redis.call('HDEL', record, 'values:' .. left) == 1 do left = left + 1 end
  redis.call('HINCRBY', record, 'rev', 1)
  identified(record)
  local delivery = key(tenant, 'delivery', delivery_id)
  redis.call('HSET', delivery, 'applied', version)
  redis.call('HINCRBY', delivery, 'rev', 1)
  identified(delivery)
  add(tenant, 'synced:' .. d.result, 1)
  finish(id, state, d, { registration = d.registration, result = d.result })
end

-- Back to the index, due later. An attempt is counted when the try reached Rhythm; an intent stays when the write may
-- have been applied.
function apply.defer(id, state, d)
  local event = key(tenant, 'event', id)
  if d.attempt then
    redis.call('HINCRBY', event, 'attempts', 1)
    redis.call('HSETNX', event, 'first_attempt_at', int(now))
  end
  if not d.keep_intent then
    release(tenant, id, redis.call('HGET', event, 'registration'))
    redis.call('HDEL', event, 'intent', 'registration')
  end
  redis.call('HDEL', event, 'lease', 'batch', 'expiries', 'alone')
  redis.call('ZADD', key(tenant, 'due:' .. stage), int(now + d.delay), id)
  if d.reason then
    redis.call('HSET', event, 'reason', d.reason, 'detail', d.detail or '')
    note(tenant, id, now, d.move, stage, d.reason)
  end
end

local states, moved = {}, false
begin_counts()
for i, decision in ipairs(decisions) do
  local id = decision.id
  local state, lease = unpack(redis.call('HMGET', key(tenant, 'event', id), 'state', 'lease'))
  if lease == token and state == (stage == 'process' and 'received' or 'ready') then
    if decision.who then name(tenant, id, decision.who) end
    apply[decision.move](id, state, decision, ARGV[FIRST_OUTCOME + i - 1])
    states[i], moved = decision.to or state, true
  else
    states[i] = 'lost'
  end
end
end_counts(tenant)
if moved then redis.call('SET', key(tenant, 'moved', stage), int(now)) end
return { prepared and want_hint(tenant, 'sync', now) or 0, states }
