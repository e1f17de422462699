#!lua
-- record: records a delivered payload, or adds a receipt to the event that it already is.
-- The only script that a full Redis refuses. A dead event delivered again is replayed, but for what can never pass.
-- ARGV: tenant, id, source, path, payload, nonce of this delivery, problem (a reason the receiver knows, or '')
-- Returns {state, duplicate}.
local tenant, id, source, path, payload, delivery_nonce, problem = unpack(ARGV)
local now, event = now_ms(), key(tenant, 'event', id)
local was = read(event, 'state', 'nonce', 'reason', 'receipts')
local state, reason = was.state, was.reason

if state and was.nonce == delivery_nonce then -- the same call again: its reply was lost
  return { state, was.receipts and 1 or 0 }
end
if state then
  redis.call('HINCRBY', event, 'receipts', was.receipts and 1 or 2) -- not kept while it is one
  redis.call('HSET', event, 'nonce', delivery_nonce)
  local hopeless = reason and (string.find(reason, '^invalid_') or reason == 'worker_killer' or reason == 'body_too_large')
  if state ~= 'dead' or hopeless then return { state, 1 } end
  redis.call('HDEL', event, 'attempts', 'first_attempt_at')
  enter(tenant, id, 'dead', 'received', now, 'sender', { move = 'replay' })
  write_counts(tenant)
  hint(tenant, now)
  return { 'received', 1 }
end

local fields = { state = 'received', source = source, received_at = int(now), nonce = delivery_nonce }
if path ~= '' then fields.path = path end
if problem ~= '' then fields.problem = problem end
set_fields(event, fields)
redis.call('SET', key(tenant, 'payload', id), payload)
redis.call('ZADD', key(tenant, 'events'), int(now), id)
redis.call('ZADD', key(tenant, INDEX.received), int(now), id)
if redis.call('HINCRBY', key(tenant, 'counts'), 'accepted', 1) == 1 then redis.call('SADD', 'er:tenants', tenant) end
count('received', nil, 1)
write_counts(tenant)
note(tenant, id, now, 'receiver', { move = 'record' })
hint(tenant, now)
return { 'received', 0 }
