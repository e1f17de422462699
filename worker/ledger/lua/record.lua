#!lua
-- record: records delivered payloads, or adds a receipt to the event that one already is.
-- The only script that a full Redis refuses. A dead event delivered again is replayed, but for what can never pass.
-- ARGV, for each: tenant, id, source, path, payload, nonce of this delivery, problem (a reason the receiver knows, or '')
-- Returns for each {state, duplicate}.
local now, answers, payloads, hinted = now_ms(), {}, {}, {}
local MEMBERS = 7

local function again(tenant, id, event, delivery_nonce)
  local reason = event.reason or ''
  local hopeless = string.find(reason, '^invalid_') or reason == 'worker_killer' or reason == 'body_too_large'
  event.receipts, event.nonce = (event.receipts or 1) + 1, delivery_nonce -- receipts are not kept while there is one
  if event.state == 'dead' and not hopeless then
    clear(event, { 'attempts', 'first_attempt_at' })
    enter(tenant, id, 'received', now, 'sender', { move = 'replay' })
    hinted[tenant] = true
  end
  return 1
end

local function record(tenant, id, source, path, payload, delivery_nonce, problem)
  local event = hash(tenant, 'event', id)
  if event.state and event.nonce == delivery_nonce then return event.receipts and 1 or 0 end -- its reply was lost
  if event.state then return again(tenant, id, event, delivery_nonce) end
  event.state, event.source, event.received_at, event.nonce = 'received', source, int(now), delivery_nonce
  if path ~= '' then event.path = path end
  if problem ~= '' then event.problem = problem end
  put(payloads, 'MSET', key(tenant, 'payload', id), payload)
  put(entering, key(tenant, 'events'), event.received_at, id)
  put(entering, key(tenant, INDEX.received), event.received_at, id)
  add(tenant, 'accepted', 1)
  count(tenant, 'received', nil, 1)
  hinted[tenant] = true
  return 0
end

for at = 1, #ARGV, MEMBERS do
  local tenant, id = ARGV[at], ARGV[at + 1]
  local duplicate = record(unpack(ARGV, at, at + MEMBERS - 1))
  table.insert(answers, { hash(tenant, 'event', id).state, duplicate })
end
if payloads.MSET then redis.call('MSET', unpack(payloads.MSET)) end
write()
for tenant in pairs(hinted) do
  redis.call('SADD', 'er:tenants', tenant)
  hint(tenant, now)
end
return answers
