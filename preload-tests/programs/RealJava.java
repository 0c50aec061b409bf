// For each line on stdin one round of work by many threads and much garbage, and one line of what came out of it.
import java.io.*;
import java.lang.ref.*;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.*;
import java.util.function.*;
import java.util.regex.*;
import java.util.stream.*;
import java.util.zip.*;

public class RealJava {
    sealed interface Shape permits Square, Circle {}
    record Square(double side) implements Shape {}
    record Circle(double radius) implements Shape {}

    static double area(Shape shape) {
        if (shape instanceof Square square) return square.side() * square.side();
        return shape instanceof Circle circle ? Math.round(3 * circle.radius() * circle.radius()) : 0;
    }

    static long garbage(int seed) {
        Map<String, List<byte[]>> map = new HashMap<>();
        long total = 0;
        for (int i = 0; i < 60_000; i++) {
            List<byte[]> list = map.computeIfAbsent("k" + (i * 7919L + seed) % 509, key -> new LinkedList<>());
            list.add(new byte[i % 300]);
            if (list.size() > 20) list.remove(0);
            total += list.size();
        }
        return total;
    }

    static byte[] packed(String text) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (GZIPOutputStream out = new GZIPOutputStream(bytes)) { out.write(text.getBytes(StandardCharsets.UTF_8)); }
        return bytes.toByteArray();
    }

    static String round() throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(4);
        List<Future<Long>> parts = new ArrayList<>();
        for (int i = 0; i < 8; i++) { int seed = i; parts.add(pool.submit(() -> garbage(seed))); }
        long total = 0;
        for (Future<Long> part : parts) total += part.get();
        pool.shutdown();
        if (!pool.awaitTermination(20, TimeUnit.SECONDS)) throw new IllegalStateException();

        AtomicLong counted = new AtomicLong();
        List<Thread> threads = new ArrayList<>();
        for (int i = 0; i < 20; i++) { int number = i; threads.add(new Thread(() -> counted.addAndGet(number))); }
        for (Thread thread : threads) thread.start();
        for (Thread thread : threads) thread.join();

        String text = IntStream.range(0, 20_000).mapToObj(i -> "w" + i * 7919L % 5003).collect(Collectors.joining(" "));
        Map<String, Long> words = Arrays.stream(text.split(" ")).parallel().collect(Collectors.groupingBy(Function.identity(), TreeMap::new, Collectors.counting()));
        Matcher matcher = Pattern.compile("w(\\d+)7\\b").matcher(text);
        int found = 0;
        while (matcher.find()) found++;
        byte[] zipped = packed(text);
        int unzipped;
        try (InputStream in = new GZIPInputStream(new ByteArrayInputStream(zipped))) { unzipped = in.readAllBytes().length; }
        String hash = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8)));
        int direct = 0;
        for (int i = 0; i < 50; i++) { ByteBuffer buffer = ByteBuffer.allocateDirect(100_000); buffer.putInt(i); direct += buffer.flip().getInt(); }
        int caught = 0;
        for (int i = 0; i < 500; i++) {
            try { if (i % 2 == 0) throw new IllegalStateException("at " + i); Object none = null; none.hashCode(); }
            catch (NullPointerException | IllegalStateException error) { caught += error.getStackTrace().length > 0 ? 1 : 0; }
        }
        WeakReference<Object> weak = new WeakReference<>(new Object());
        System.gc();
        BigInteger power = BigInteger.valueOf(3).pow(200);
        double areas = Stream.of(new Square(2), new Circle(3)).mapToDouble(RealJava::area).sum();
        ByteArrayOutputStream stored = new ByteArrayOutputStream();
        try (ObjectOutputStream out = new ObjectOutputStream(stored)) { out.writeObject(new TreeMap<>(words)); }
        Object back = new ObjectInputStream(new ByteArrayInputStream(stored.toByteArray())).readObject();
        ClassLoader loader = new ClassLoader(RealJava.class.getClassLoader()) {};
        Class<?> again = Class.forName("java.util.Optional", true, loader);
        return String.join(" ", "" + total, "" + counted, "" + words.size(), "" + found, "" + unzipped, hash, "" + direct, "" + caught,
            "" + (weak.get() == null), power.toString(), "" + areas, "" + back.equals(words), again.getSimpleName());
    }

    public static void main(String[] args) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        while (lines.readLine() != null) System.out.println(round());
    }
}
