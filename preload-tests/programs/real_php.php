<?php
// For each line on stdin one round of work, and one line of what came out of it.
interface HasArea { public function area(): float; }
abstract class Shape implements HasArea {
    public static int $ended = 0;
    public ?Shape $other = null;
    public function __construct(public readonly string $name) {}
    public function __destruct() { self::$ended++; }
    abstract public function area(): float;
}
trait Scaled { private float $scale = 1.5; public function scaled(): float { return $this->area() * $this->scale; } }
final class Square extends Shape {
    use Scaled;
    public function __construct(private float $side) { parent::__construct("square$side"); }
    public function area(): float { return $this->side ** 2; }
}
enum Suit: string { case Hearts = 'H'; case Spades = 'S'; }

function numbers(int $end): Generator {
    for ($i = 0; $i < $end; $i++) { $sent = yield $i => $i * $i; if ($sent) { yield $sent; } }
    return $end;
}

function round_of_work(): array {
    $words = [];
    for ($i = 0; $i < 20000; $i++) { $words['w' . ($i * 7919 % 5003)][] = ['at' => $i, 'text' => "x$i"]; }
    ksort($words);
    $json = json_encode($words, JSON_PRETTY_PRINT);
    $back = json_decode($json, true, 512, JSON_THROW_ON_ERROR);
    $found = preg_match_all('/"text":\s*"x(?<number>\d+)7"/u', $json, $matches);
    $changed = preg_replace_callback('/w(\d+)/', fn ($m) => dechex((int) $m[1]), $json, 5000);

    $add = fn (int $n) => fn (int $m) => $n + $m;
    $adders = array_map($add, range(1, 500));
    $sum = array_reduce($adders, fn ($carry, $f) => $carry + $f($carry % 7), 0);

    $caught = 0;
    for ($i = 0; $i < 500; $i++) {
        try { if ($i % 2) { intdiv(1, 0); } throw new DomainException("at $i", $i, new RuntimeException('inner')); }
        catch (DivisionByZeroError | DomainException $error) { $caught += strlen($error->getTraceAsString()) > 0 ? 1 : 0; }
        finally { $caught += 2; }
    }
    try { json_decode('{', false, 2, JSON_THROW_ON_ERROR); } catch (JsonException $error) { $caught++; }

    // Cycles, which only its garbage collector finds.
    for ($i = 0; $i < 12000; $i++) { $a = new Square($i); $b = new Square($i + 0.5); $a->other = $b; $b->other = $a; }
    $area = (int) $a->scaled();
    unset($a, $b);
    gc_collect_cycles();

    $generator = numbers(1000);
    $squares = 0;
    foreach ($generator as $square) { $squares += $square; }
    $fiber = new Fiber(function (int $first): int { $next = Fiber::suspend($first * 2); return $next * 3; });
    $fibered = $fiber->start(5);
    $fiber->resume(7);

    $heap = new SplPriorityQueue();
    foreach ($words as $word => $list) { $heap->insert($word, crc32($word)); }
    $top = $heap->extract();
    $map = new WeakMap();
    $key = new ArrayObject([1, 2, 3]);
    $map[$key] = serialize($words);
    $same = unserialize($map[$key]) == $back;
    $text = str_repeat('lorem ipsum ', 10000);
    $packed = function_exists('gzcompress') ? gzuncompress(gzcompress($text, 6)) === $text : true;
    $parts = explode(' ', $text);
    usort($parts, fn ($x, $y) => strcmp($x, $y));
    $date = (new DateTimeImmutable('2024-02-29', new DateTimeZone('Europe/Berlin')))->modify('+1 year')->format(DATE_ATOM);
    $code = eval('return fn ($n) => $n ** 2;');
    return [count($words), hash('sha256', $json), $found, hash('md5', $changed), $sum, $caught, $area, $squares, $fibered,
        $fiber->getReturn(), $top, $same, $packed, count($parts), $date, $code(12), Suit::from('S')->name, sprintf('%08.3f', M_PI)];
}

while (fgets(STDIN) !== false) {
    echo implode(' ', array_map('strval', round_of_work())), ' ', Shape::$ended, "\n";
    Shape::$ended = 0;
}
