#!lua flags=allow-oom
-- intend: the row before the act. Takes each registration for one event and stores what is about to be written there.
-- A registration belongs to one event until that event's write is settled, so nothing else needs an order. The plan
-- must still fit: `rev` of registration and delivery are as they were when it was made.
-- ARGV: tenant, token, intents as JSON: {id, registration, rev, delivery_rev, intent as text}
-- Returns for each: 'ok' | 'taken' (another event is writing there) | 'moved' (plan anew) | 'lost' (no longer ours).
local tenant, token = unpack(ARGV)
local now, answers = now_ms(), {}

local function taken_by_other(owner, id, registration)
  local other = owner and owner ~= id and hash(tenant, 'event', owner) or {}
  return other.state == 'ready' and other.registration == registration and other.intent
end

for i, plan in ipairs(cjson.decode(ARGV[3])) do
  local event, record = hash(tenant, 'event', plan.id), hash(tenant, 'registration', plan.registration)
  local delivery = hash(tenant, 'delivery', event.delivery or '')
  if event.state ~= 'ready' or event.lease ~= token then
    answers[i] = 'lost'
  elseif taken_by_other(record.owner, plan.id, plan.registration) then
    answers[i] = 'taken'
  elseif (record.rev or '0') ~= plan.rev or (delivery.rev or '0') ~= plan.delivery_rev then
    answers[i] = 'moved'
  else
    if event.registration ~= plan.registration then release(tenant, plan.id, event.registration) end
    record.owner = plan.id
    event.registration, event.intent, event.doubt = plan.registration, plan.intent, nil
    note(event, now, 'process', { move = 'intend' })
    answers[i] = 'ok'
  end
end
write()
return say(answers)
