#!lua flags=allow-oom
-- release: a task ends and gives its slot back, and hints if there is more to do. ARGV: tenant, stage, token. Only one
-- who had a slot looks, or tasks that find all slots busy would go on waking each other.
local tenant, stage, token = unpack(ARGV)
local now = now_ms()
if redis.call('ZREM', key(tenant, 'slots:' .. stage), token) == 0 then return 0 end
if redis.call('ZCOUNT', key(tenant, 'due:' .. stage), '-inf', int(now)) == 0 then return 0 end
local closed = stage == 'sync' and redis.call('HGET', key(tenant, 'gate'), 'closed_until')
if closed and tonumber(closed) > now then return 0 end
hint(tenant, stage, now)
return 0
