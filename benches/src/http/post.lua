-- POSTs messages that were never posted before. Arguments: a name that is unique to the run, and the rest of each
-- message.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("thread", threads)
end

function init(arguments)
  before = '{"message": "' .. arguments[1] .. "-" .. thread .. "-"
  after = arguments[2] .. '"}'
  number = 0
  head = "POST /messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
end

function request()
  number = number + 1
  local body = before .. string.format("%09d", number) .. after
  return head .. #body .. "\r\n\r\n" .. body
end
