#!lua flags=allow-oom
-- seen: a process is at work; those that have not been for long are forgotten.
-- ARGV: name, what it tells of itself as JSON, forget after ms
local name, told, forget = unpack(ARGV)
local now = now_ms()
local seen = 'er:processes.seen'
redis.call('HSET', 'er:processes', name, told)
redis.call('ZADD', seen, int(now), name)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', int(now - forget))) do
  redis.call('HDEL', 'er:processes', gone)
  redis.call('ZREM', seen, gone)
end
return 1
