-- What a server does beside pgbench's transactions, in one session. Prints what came out of it.
begin;
create temp table reading (id int primary key, at timestamp, place text, value numeric, more jsonb);
insert into reading select n, timestamp '2024-01-01' + n * interval '1 minute', 'p' || n * 7919 % 101, (n * 31 % 997) / 10.0,
    jsonb_build_object('n', n, 'list', array[n, n + 1]) from generate_series(1, 30000) n;
create index on reading (place, value);
create index on reading using gin (more);
analyze reading;
select place, count(*), sum(value) from reading group by place order by 3 desc, 1 limit 3;
select count(*) from (select sum(value) over (partition by place order by at rows between 5 preceding and current row) s from reading) w where s > 300;
select count(*) from reading where more @> '{"n": 77}' or place ~ '^p(1|2)[0-9]$';
with recursive fib(a, b, n) as (select 0::numeric, 1::numeric, 0 union all select b, a + b, n + 1 from fib where n < 300) select max(a) from fib;
select md5(string_agg(upper(regexp_replace(place, '([0-9])', '<\1>', 'g')), ',' order by id)) from reading;
create function pg_temp.tried(n int) returns text language plpgsql as $$
begin
    return 1 / (n % 3);
exception when division_by_zero then return 'none';
end $$;
select count(*) filter (where t = 'none') from (select pg_temp.tried(n) t from generate_series(1, 2000) n) x;
savepoint before;
delete from reading where id % 2 = 0;
rollback to before;
select count(*), xmlserialize(content xmlelement(name x, max(value)) as text) from reading;
prepare one(text) as select count(*) from reading r join reading s using (place) where r.place = $1;
execute one('p5');
execute one('p6');
declare c cursor for select id from reading order by value desc, id;
fetch 2 from c;
close c;
commit;
select sum(abalance), count(*) from pgbench_accounts;
