-- GETs messages in random order, different for each thread. Arguments: a file with one digest per line.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("thread", threads)
end

function init(arguments)
  digests = assert(io.open(arguments[1])):read("*a")
  count = #digests / 65
  math.randomseed(os.time() * 16 + thread)
end

function request()
  local first = math.random(0, count - 1) * 65 + 1
  return "GET /messages/" .. digests:sub(first, first + 63) .. " HTTP/1.1\r\nHost: localhost\r\n\r\n"
end
