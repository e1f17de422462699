#!lua flags=allow-oom
-- stray: keeps a message that names no tenant or source that we know, or has no body. Equal content is the same stray; one
-- that was forgotten is not kept again. ARGV: id, what is known of it as JSON, the content (sealed)
if redis.call('EXISTS', 'er:strays.forgotten.' .. ARGV[1]) == 1 then return 0 end
redis.call('ZADD', 'er:strays.at', 'NX', int(now_ms()), ARGV[1])
return redis.call('HSETNX', 'er:strays', ARGV[1], int(now_ms()) .. '\n' .. ARGV[2] .. '\n' .. ARGV[3])
