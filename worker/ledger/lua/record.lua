#!lua
-- record: puts a delivered payload on the books, or adds a receipt to the event it already is.
-- The only script that a full Redis refuses. A dead event delivered again is replayed, but for what can never pass.
-- ARGV: tenant, id, source, path, payload, nonce of this delivery, problem (a reason the receiver knows, or '')
-- Returns {state, duplicate}.
local tenant, id, source, path, payload, nonce, problem = unpack(ARGV)
local now = now_ms()
local event = key(tenant, 'event', id)
local known = redis.call('HMGET', event, 'state', 'nonce', 'reason', 'receipts')
local state, reason = known[1], known[3]

if state and known[2] == nonce then -- the same call again: its reply was lost
  return { state, known[4] and 1 or 0 }
end
if state then
  redis.call('HINCRBY', event, 'receipts', known[4] and 1 or 2) -- not kept while it is one
  redis.call('HSET', event, 'nonce', nonce)
  local hopeless = reason and (string.find(reason, '^invalid_') or reason == 'worker_killer' or reason == 'body_too_large')
  if state ~= 'dead' or hopeless then return { state, 1 } end
  redis.call('HDEL', event, 'attempts', 'first_attempt_at')
  enter(tenant, id, 'dead', 'received', now, { move = 'replay', by = 'sender' })
  hint(tenant, 'process', now)
  return { 'received', 1 }
end

redis.call('HSET', event, 'state', 'received', 'source', source, 'received_at', int(now), 'nonce', nonce)
if path ~= '' then redis.call('HSET', event, 'path', path) end
if problem ~= '' then redis.call('HSET', event, 'problem', problem) end
redis.call('SET', key(tenant, 'payload', id), payload)
redis.call('ZADD', key(tenant, 'events'), int(now), id)
redis.call('ZADD', key(tenant, 'due:process'), int(now), id)
if redis.call('HINCRBY', key(tenant, 'counts'), 'accepted', 1) == 1 then redis.call('SADD', 'er:tenants', tenant) end
count(tenant, 'received', nil, 1)
note(tenant, id, now, 'record', 'receiver')
hint(tenant, 'process', now)
return { 'received', 0 }
