#!lua flags=allow-oom
-- stray: keeps a message that names no tenant or source that we know, or has no body. Equal content is the same stray.
-- ARGV: id, what is known of it as JSON, the content (sealed)
local id, about, sealed = unpack(ARGV)
return redis.call('HSETNX', 'er:strays', id, int(now_ms()) .. '\n' .. about .. '\n' .. sealed)
