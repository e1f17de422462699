#!lua flags=no-writes
-- look: an event as a task would claim it, with what the ledger holds of its delivery. Takes nothing.
-- ARGV: tenant, id. Returns {fields of the event, payload, delivery (`delivery_record`)}.
local tenant, id = unpack(ARGV)
local fields = redis.call('HGETALL', key(tenant, 'event', id))
return { fields, redis.call('GET', key(tenant, 'payload', id)) or '', delivery_record(tenant, id, by_name(fields)) }
