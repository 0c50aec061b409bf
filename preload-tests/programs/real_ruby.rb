# For each line on stdin one round of work, and one line of what came out of it.
require "json"
require "digest"
require "set"
require "stringio"
require "zlib"

$stdout.sync = true
Point = Struct.new(:x, :y) { def length = Math.sqrt(x**2 + y**2) }
class Refused < StandardError
  def initialize(number) = super("number #{number}")
end
module Named
  def method_missing(name, *args) = name.end_with?("?") ? name.to_s.chop == args.first : super
  def respond_to_missing?(name, all = false) = name.end_with?("?") || super
end
class Thing
  include Named
  include Comparable
  attr_accessor :other, :number
  def initialize(number) = @number = number
  def <=>(other) = number <=> other.number
end

def work
  words = Hash.new { |hash, key| hash[key] = [] }
  20_000.times { |i| words["w#{i * 7919 % 5003}"] << { at: i, text: "x#{i}" } }
  text = JSON.generate(words.sort.to_h)
  back = JSON.parse(text, symbolize_names: true)
  found = text.scan(/"x(?<number>\d+)7"/).length
  changed = text.gsub(/w(\d+)/) { $1.to_i.to_s(16) }
  adders = (1..500).map { |n| ->(m) { n + m } }
  sum = adders.reduce(0) { |carry, add| carry + add.(carry % 7) }
  caught = 0
  500.times do |i|
    raise Refused, i if i.odd?
    Integer("none")
  rescue Refused, ArgumentError => error
    caught += error.backtrace.length.positive? ? 1 : 0
  ensure
    caught += 2
  end
  things = (0...5000).map { |i| Thing.new(i * 7919 % 5003) }
  things.each_cons(2) { |a, b| a.other = b }
  things.last.other = things.first
  least, most = things.minmax.map(&:number)
  named = things.first.name?("name")
  maker = Class.new(Thing) { define_method(:double) { number * 2 } }
  doubled = maker.new(21).double
  maker.new(1).instance_eval { @number += 1 }
  numbers = Enumerator.new { |out| a, b = 0, 1; loop { out << a; a, b = b, a + b } }.lazy.select(&:even?).first(40)
  fiber = Fiber.new { |first| Fiber.yield(first * 2) * 3 }
  fibered = [fiber.resume(5), fiber.resume(7)]
  queue = Queue.new
  threads = 4.times.map { |n| Thread.new(n) { |m| 500.times { |i| queue << "#{m}-#{i}" }; m ** 2 } }
  squares = threads.sum(&:value)
  ObjectSpace.each_object(Class).count
  set = Set.new(text.each_char.first(5000))
  io = StringIO.new
  words.each { |word, list| io.printf("%s=%d\n", word, list.length) }
  packed = Zlib::Inflate.inflate(Zlib::Deflate.deflate(text)) == text
  binding.local_variable_set(:found, found)
  evaluated = eval("proc { |n| n ** 200 }").call(3)
  symbols = 200.times.map { |i| "symbol_#{i}".to_sym }.uniq.length
  case { kind: "point", at: [1, 2] }
  in { kind: String => kind, at: [Integer => x, *] } then kind
  end
  copy = Marshal.load(Marshal.dump(words.to_a)) == words.to_a
  caught_symbol = catch(:done) { words.each { |word, list| throw :done, word if list.length > 3 } }
  GC.start
  GC.compact if GC.respond_to?(:compact)
  [words.length, Digest::SHA256.hexdigest(text), back.length, found, Digest::MD5.hexdigest(changed), sum, caught, least, most, named,
   doubled, numbers.last, fibered, queue.length, squares, set.length, io.string.length, packed, evaluated, symbols, kind, x, copy,
   caught_symbol, Point.new(3, 4).length].join(" ")
end

while $stdin.gets
  puts work
end
