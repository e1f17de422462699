#!lua flags=allow-oom
-- stray: keeps a message that is on nobody's books. The same content again is the same stray.
-- ARGV: id, what is told of it as JSON, the content (sealed)
local id, told, sealed = unpack(ARGV)
return redis.call('HSETNX', 'er:strays', id, int(now_ms()) .. '\n' .. told .. '\n' .. sealed)
