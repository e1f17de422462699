#!lua flags=allow-oom
-- intend: the row before the act. Takes each registration for one event and stores what is about to be written there.
-- A registration belongs to one event until that event's write is settled, so nothing else needs an order. The plan
-- must still fit: `rev` of registration and delivery are as they were when it was made.
-- ARGV: tenant, token, intents as JSON: {id, registration, rev, delivery_rev, intent as text}
-- Returns for each: 'ok' | 'taken' (another event is writing there) | 'moved' (plan anew) | 'lost' (no longer ours).
local tenant, token = unpack(ARGV)
local now = now_ms()
local answers = {}

local function owned_by_other(owner, id, registration)
  if not owner or owner == id then return false end
  local other = redis.call('HMGET', key(tenant, 'event', owner), 'state', 'registration', 'intent')
  return other[1] == 'ready' and other[2] == registration and other[3]
end

for i, plan in ipairs(cjson.decode(ARGV[3])) do
  local event = key(tenant, 'event', plan.id)
  local record = key(tenant, 'registration', plan.registration)
  local mine = redis.call('HMGET', event, 'state', 'lease', 'delivery', 'registration')
  local owner, rev = unpack(redis.call('HMGET', record, 'owner', 'rev'))
  local delivery_rev = redis.call('HGET', key(tenant, 'delivery', mine[3] or ''), 'rev')
  if mine[1] ~= 'ready' or mine[2] ~= token then
    answers[i] = 'lost'
  elseif owned_by_other(owner, plan.id, plan.registration) then
    answers[i] = 'taken'
  elseif (rev or '0') ~= plan.rev or (delivery_rev or '0') ~= plan.delivery_rev then
    answers[i] = 'moved'
  else
    if mine[4] and mine[4] ~= plan.registration then release(tenant, plan.id, mine[4]) end
    redis.call('HSET', record, 'owner', plan.id)
    redis.call('HSET', event, 'registration', plan.registration, 'intent', plan.intent)
    redis.call('HDEL', event, 'doubt')
    note(tenant, plan.id, now, 'intend', 'sync')
    answers[i] = 'ok'
  end
end
return say(answers)
