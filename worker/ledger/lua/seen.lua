#!lua flags=allow-oom
-- seen: a process is at work; those that have not been for long are forgotten.
-- ARGV: name, what it tells of itself as JSON, forget after ms
local name, process, forget = unpack(ARGV)
local now, processes, seen = now_ms(), 'er:processes', 'er:processes.seen'
redis.call('HSET', processes, name, process)
redis.call('ZADD', seen, int(now), name)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', int(now - forget))) do
  redis.call('HDEL', processes, gone)
  redis.call('ZREM', seen, gone)
end
return 1
